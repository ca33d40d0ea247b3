//! Messages and the transactions that they are of.

use proptest::prelude::*;

use super::*;
use crate::decode::Address;
use crate::index::Sender;
use crate::window::ExcerptBlock;

const SECOND: u64 = 1_000_000_000;
const LATEST: Timestamp = Timestamp(u64::MAX);
const NOTHING: Said = Said::Tls { client: None, server: None };

/// A flow whose initiator is the lower endpoint.
fn flow(application: Application, protocol: u8, number: u8) -> Excerpt {
    let key = FlowKey {
        low: Address::v4([10, 0, 0, number]),
        high: Address::v4([10, 1, 0, 1]),
        protocol,
        ip_version: 4,
        ..FlowKey::default()
    };
    Excerpt { key, application, ..Excerpt::default() }
}

fn udp(number: u8) -> Excerpt {
    flow(Application::Dns, protocol::UDP, number)
}

/// Sends one message at once.
fn say(apps: &mut Apps, flow: &Excerpt, sender: Sender, at: u64, octets: &[u8]) {
    let payload_octets = u32::try_from(octets.len()).expect("short").max(flow.payload_octets);
    let excerpt = Excerpt { sender, at: Timestamp(at), payload_octets, ..*flow };
    apps.take(&ExcerptBlock::of(&excerpt, octets));
}

fn done(apps: &mut Apps) -> Vec<Transaction> {
    apps.done(LATEST).0
}

/// Of `id`, for `name`, which has one label.
fn dns(id: u16, flags: u16, name: &str) -> Vec<u8> {
    let label = u8::try_from(name.len()).expect("short");
    [
        &id.to_be_bytes()[..],
        &flags.to_be_bytes(),
        &[0, 1, 0, 0, 0, 0, 0, 0, label],
        name.as_bytes(),
        &[0, 0, 1, 0, 1],
    ]
    .concat()
}

#[test]
fn an_answer_finds_its_query() {
    let mut apps = Apps::new(false);
    let (one, other) = (udp(1), udp(2));
    say(&mut apps, &one, Sender::Low, SECOND, &dns(7, 0x100, "a"));
    say(&mut apps, &one, Sender::Low, SECOND + 5, &dns(7, 0x100, "a"));
    say(&mut apps, &one, Sender::Low, SECOND + 1, &dns(8, 0x100, "b"));
    say(&mut apps, &other, Sender::Low, SECOND + 2, &dns(7, 0x100, "a"));
    // Another id, another name, the same end: none of them answers.
    say(&mut apps, &one, Sender::High, SECOND + 3, &dns(9, 0x8183, "x"));
    say(&mut apps, &one, Sender::High, 2 * SECOND, &dns(7, 0x8183, "A"));
    let [answered, alone] = &done(&mut apps)[..] else { panic!("two") };
    assert_eq!((answered.flow.at.0, answered.answered), (SECOND, Some(Timestamp(2 * SECOND))));
    let Said::Dns { message, answer: Some(answer) } = &answered.said else { panic!("answered") };
    assert_eq!((message.id, answer.rcode()), (7, 3));
    assert_eq!((alone.flow.at.0, alone.answered), (SECOND + 3, None));
    apps.expire(Timestamp(SECOND + 1 + DNS_WAIT_NS));
    assert!(done(&mut apps).is_empty(), "it can still be answered");
    apps.expire(Timestamp(SECOND + 2 + DNS_WAIT_NS));
    let [unanswered] = &done(&mut apps)[..] else { panic!("one") };
    assert_eq!(unanswered.flow.at.0, SECOND + 1);
    apps.end();
    assert_eq!(done(&mut apps).len(), 1);
    assert_eq!(apps.waiting_count, 0);
}

#[test]
fn an_answer_that_is_late_answers_nothing_whoever_looked() {
    let late = 2 * SECOND + DNS_WAIT_NS;
    let outcome = |looks: bool| {
        let mut apps = Apps::new(false);
        say(&mut apps, &udp(1), Sender::Low, SECOND, &dns(7, 0x100, "a"));
        if looks {
            apps.expire(Timestamp(late));
        }
        say(&mut apps, &udp(1), Sender::High, late, &dns(7, 0x8180, "a"));
        apps.end();
        done(&mut apps)
    };
    assert_eq!(outcome(false), outcome(true));
    assert_eq!(outcome(true).len(), 2);
}

#[test]
fn what_is_over_later_is_given_out_later() {
    let mut apps = Apps::new(false);
    say(&mut apps, &udp(1), Sender::Low, 1, &dns(7, 0x100, "a"));
    say(&mut apps, &udp(1), Sender::High, 5, &dns(7, 0x8180, "a"));
    say(&mut apps, &udp(1), Sender::High, 6, &dns(8, 0x8180, "a"));
    let mut given = |end| apps.done(Timestamp(end)).0.len();
    assert_eq!([given(5), given(6), given(6), given(7)], [0, 1, 0, 1]);
}

#[test]
fn what_waits_has_a_bound_and_the_rest_is_counted() {
    let mut apps = Apps::new(false);
    let more = u16::try_from(QUERIES_MAX).expect("short") + 3;
    for id in 0..more {
        say(&mut apps, &udp(1), Sender::Low, SECOND, &dns(id, 0x100, "a"));
    }
    apps.waiting_count = WAITING_MAX;
    say(&mut apps, &udp(2), Sender::Low, SECOND, &dns(1, 0x100, "a"));
    say(&mut apps, &udp(2), Sender::Low, SECOND, b"no message");
    let (_, counts) = apps.done(LATEST);
    assert_eq!(counts, [4, 1]);
    apps.waiting_count = QUERIES_MAX;
    apps.end();
    assert_eq!(done(&mut apps).len(), QUERIES_MAX);
}

/// A hello with so large a key share that it takes two segments.
fn hello() -> Vec<u8> {
    crate::app::tls::hello::tests::client("example.org", 1_216)
}

#[test]
fn a_hello_of_two_segments_is_put_together() {
    let flow = flow(Application::Tls, protocol::TCP, 1);
    let whole = hello();
    let (first, second) = whole.split_at(1_000);
    let cut = |sequence| Excerpt { sequence, ..flow };
    let server =
        [&[22, 3, 3, 0, 46, 2, 0, 0, 42, 3, 3][..], &[9; 32], &[0, 0x13, 1, 0, 0, 2, 0, 0]]
            .concat();
    let mut apps = Apps::new(false);
    say(&mut apps, &cut(u32::MAX - 499), Sender::Low, SECOND, first);
    // The first segment again, and then the second.
    say(&mut apps, &cut(u32::MAX - 499), Sender::Low, SECOND + 1, first);
    say(&mut apps, &cut(500), Sender::Low, SECOND + 2, second);
    say(&mut apps, &flow, Sender::High, SECOND + 9, &server);
    let [told] = &done(&mut apps)[..] else { panic!("one") };
    assert_eq!((told.answered, told.is_cut), (None, false));
    let Said::Tls { client: Some(client), server } = &told.said else { panic!("a client") };
    assert_eq!(client.server_name.as_deref(), Some("example.org"));
    assert_eq!(server.as_ref().map(|it| it.cipher), None, "a length that is wrong");
    // A hello whose second half was lost says that it is cut; a server's is told of alone.
    let server = [&[22, 3, 3, 0, 44, 2, 0, 0, 40, 3, 3][..], &[9; 32], &[0, 0x13, 1, 0, 0, 0]];
    say(&mut apps, &cut(0), Sender::Low, SECOND, first);
    say(&mut apps, &cut(9), Sender::Low, SECOND, second);
    apps.end();
    say(&mut apps, &flow, Sender::High, SECOND + 9, &server.concat());
    let [half, alone] = &done(&mut apps)[..] else { panic!("two") };
    assert_eq!((half.is_cut, &half.said), (true, &NOTHING));
    let Said::Tls { client: None, server: Some(server) } = &alone.said else { panic!("alone") };
    assert_eq!((server.cipher, server.version), (0x1301, 0x303));
}

#[test]
fn requests_and_responses_take_turns() {
    let flow = flow(Application::Http, protocol::TCP, 1);
    let mut apps = Apps::new(false);
    let request = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut say = |sequence, sender, at, octets: &[u8]| {
        say(&mut apps, &Excerpt { sequence, ..flow }, sender, at, octets);
    };
    say(0, Sender::Low, 1, request);
    say(0, Sender::High, 2, b"HTTP/1.1 100 Continue\r\n\r\n");
    say(100, Sender::High, 3, b"HTTP/1.1 200 OK\r\n\r\n");
    say(100, Sender::Low, 4, request);
    say(200, Sender::Low, 5, request);
    say(200, Sender::High, 6, b"HTTP/1.1 404 No\r\n\r\n");
    say(300, Sender::High, 7, b"HTTP/1.1 500 No\r\n");
    let told: Vec<_> = done(&mut apps)
        .iter()
        .map(|it| {
            let Said::Http { request, response } = &it.said else { panic!("HTTP") };
            let target = request.as_ref().map(|it| it.target.clone());
            let status = response.as_ref().map(|it| it.status);
            (it.flow.at.0, it.answered.map(|at| at.0), target, status, it.is_cut)
        })
        .collect();
    let target = Some("/a?".to_owned());
    let wanted = [
        (1, Some(3), target.clone(), Some(200), false),
        (4, None, target.clone(), None, false),
        (5, Some(6), target, Some(404), false),
        (7, None, None, Some(500), true),
    ];
    assert_eq!(told, wanted);
}

#[test]
fn what_tcp_sends_again_is_told_once() {
    let request = b"GET / HTTP/1.1\r\n\r\n";
    let response = b"HTTP/1.1 200 OK\r\n\r\n";
    let query = [&[0, 19][..], &dns(7, 0x100, "a")].concat();
    let answer = [&[0, 19][..], &dns(7, 0x8180, "a")].concat();
    for (application, asked, told) in
        [(Application::Http, &request[..], &response[..]), (Application::Dns, &query, &answer)]
    {
        let (mut apps, flow) = (Apps::new(false), flow(application, protocol::TCP, 1));
        let mut say = |sequence, sender, at, octets: &[u8]| {
            say(&mut apps, &Excerpt { sequence, ..flow }, sender, at, octets);
        };
        // Its number begins anew in the middle of it.
        say(u32::MAX - 5, Sender::Low, 1, asked);
        say(u32::MAX - 5, Sender::Low, 2, asked);
        say(0, Sender::High, 3, told);
        // Both came through, and their acknowledgements were lost; of one a part comes again.
        say(u32::MAX - 5, Sender::Low, 4, asked);
        say(3, Sender::High, 5, told);
        say(100, Sender::Low, 6, asked);
        say(0, Sender::High, 7, told);
        say(100, Sender::High, 8, told);
        let all: Vec<_> = done(&mut apps).iter().map(|it| (it.flow.at.0, it.answered)).collect();
        let wanted = [(1, Some(Timestamp(3))), (6, Some(Timestamp(8)))];
        assert_eq!(all, wanted, "{application:?}");
        // What was said is forgotten as soon as nobody repeats it.
        apps.expire(Timestamp(8 + REPEAT_NS));
        assert_eq!((apps.waiting.len(), apps.held_bytes), (1, FLOW_BYTES));
        apps.expire(Timestamp(9 + REPEAT_NS));
        assert_eq!((apps.waiting.len(), apps.held_bytes), (0, 0));
        assert_eq!(apps.done(LATEST).1, [0, 0]);
    }
}

#[test]
fn a_hello_that_is_sent_anew_in_a_longer_segment_is_whole() {
    let (flow, whole) = (flow(Application::Tls, protocol::TCP, 1), hello());
    let mut apps = Apps::new(false);
    say(&mut apps, &flow, Sender::Low, SECOND, &whole[..700]);
    // Behind a gap, and then before the hello.
    say(&mut apps, &Excerpt { sequence: 701, ..flow }, Sender::Low, SECOND, &whole[701..]);
    say(&mut apps, &Excerpt { sequence: u32::MAX, ..flow }, Sender::Low, SECOND, &whole);
    say(&mut apps, &flow, Sender::Low, SECOND + 1, &whole);
    apps.end();
    let [told] = &done(&mut apps)[..] else { panic!("one") };
    let Said::Tls { client: Some(client), .. } = &told.said else { panic!("a client") };
    assert_eq!((client.server_name.as_deref(), told.flow.at.0), (Some("example.org"), SECOND));
    assert!(!told.is_cut);
}

/// Memory of all that is held.
fn held_bytes(apps: &Apps) -> usize {
    let waiting = apps.waiting.values().map(|waiting| FLOW_BYTES + waiting.bytes());
    waiting.chain(apps.done.iter().map(Transaction::bytes)).sum()
}

#[test]
fn what_waits_and_what_was_told_share_a_bound_in_bytes() {
    const BYTES_MAX: usize = 40_000;
    let mut apps = Apps::new(false);
    apps.held_bytes_max = BYTES_MAX;
    let long = "x".repeat(63);
    for round in 0..3 {
        // Answers that nobody asked for are told at once, queries wait: either of them finds no room in
        // the end.
        for number in 0..200 {
            let (sender, flags) = [(Sender::High, 0x8180), (Sender::Low, 0x100)][round % 2];
            let id = u16::from(number);
            say(&mut apps, &udp(number), sender, SECOND, &dns(id, flags, &long));
            assert!(apps.held_bytes <= BYTES_MAX);
            assert_eq!(apps.held_bytes, held_bytes(&apps));
        }
        assert!(apps.held_bytes > BYTES_MAX - 2_000, "{}", apps.held_bytes);
        apps.end();
        let (told, [lost, malformed]) = apps.done(LATEST);
        assert!((30..150).contains(&told.len()), "{}", told.len());
        assert_eq!((told.len() as u64 + lost, malformed), (200, 0));
        assert_eq!((apps.held_bytes, apps.waiting.len()), (0, 0), "there is room again");
    }
    // A hello that goes on is held as well.
    let flow = flow(Application::Tls, protocol::TCP, 1);
    apps.held_bytes_max = 10_000;
    say(&mut apps, &flow, Sender::Low, SECOND, &hello()[..700]);
    say(&mut apps, &Excerpt { sequence: 700, ..flow }, Sender::Low, SECOND, &hello()[700..]);
    assert_eq!((apps.lost, apps.held_bytes), (1, held_bytes(&apps)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is said by whom, there is no panic, and what waits is counted right: all of it is told at
    /// the end.
    #[test]
    fn arbitrary_messages_keep_the_account(
        messages in prop::collection::vec(
            (0_u8..3, 1_u8..3, any::<bool>(), 0_u64..100, 0_u8..6, prop::collection::vec(any::<u8>(), 0..60)),
            0..60,
        ),
        looks in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut apps = Apps::new(true);
        let hello = hello();
        for ((kind, number, is_low, at, what, octets), looks) in messages.into_iter().zip(looks) {
            let sender = if is_low { Sender::Low } else { Sender::High };
            let flow = match kind {
                0 => udp(number),
                1 => flow(Application::Tls, protocol::TCP, number),
                _ => flow(Application::Http, protocol::TCP, number),
            };
            let known = match what {
                0 => dns(octets.len().try_into().unwrap_or(0), if is_low { 0x100 } else { 0x8180 }, "a"),
                1 => hello.get(..700).unwrap_or_default().to_vec(),
                2 => hello.clone(),
                3 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
                4 => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
                _ => octets,
            };
            let sequence = u32::try_from(at).unwrap_or(0) * 37 % 200;
            say(&mut apps, &Excerpt { sequence, ..flow }, sender, at * SECOND, &known);
            if looks {
                apps.expire(Timestamp(at * SECOND));
            }
            let waiting: usize = apps.waiting.values().map(Waiting::len).sum();
            prop_assert_eq!(apps.waiting_count, waiting);
            prop_assert!(apps.waiting.values().all(|waiting| !waiting.is_empty()));
            prop_assert_eq!(apps.held_bytes, held_bytes(&apps));
        }
        let (told, waiting) = (done(&mut apps).len(), apps.waiting_count);
        apps.end();
        prop_assert_eq!(done(&mut apps).len(), waiting, "after {}", told);
    }
}
