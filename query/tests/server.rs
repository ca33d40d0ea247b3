//! A server that answers slowly, and then not at all, or without an end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Before the first answer.
const SLOW: Duration = Duration::from_millis(1_100);
/// The limit of the commands.
const TIMEOUT_S: u32 = 8;
/// How long a command may take then: its limit, the grace of an answer, and what a busy machine adds.
const COMMAND_S_MAX: &str = "20";
const DDL: &str = include_str!("../src/schema.sql");

/// Starts it; gives its URL and the first lines of what it is asked. `octets`: how many it gives for records.
fn server(octets: Option<u64>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/secret", listener.local_addr().expect("an address"));
    let (asked, questions) = channel();
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for (number, stream) in listener.incoming().flatten().enumerate() {
            silent.extend(answer(number, stream, &asked, octets));
        }
    });
    (url, questions)
}

/// The version, late; the tables; and of what comes then so many octets, or the connection, which stays open.
fn answer(
    number: usize,
    mut stream: TcpStream,
    asked: &Sender<String>,
    given: Option<u64>,
) -> Option<TcpStream> {
    let mut reader = BufReader::new(stream.try_clone().expect("a connection"));
    let (mut first, mut octets) = (String::new(), 0);
    reader.read_line(&mut first).expect("a request");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a request");
        let line = line.trim().to_ascii_lowercase();
        if let Some(length) = line.strip_prefix("content-length: ") {
            octets = length.parse().expect("a length");
        }
        if line.is_empty() {
            break;
        }
    }
    reader.take(octets).read_to_end(&mut Vec::new()).expect("a question");
    let _ = asked.send(first);
    let version = DDL.split_once("schema version ").expect("a version").1;
    let version = version.split('.').next().expect("a number");
    let tables =
        DDL.lines().filter_map(|line| line.strip_prefix("CREATE TABLE \"")?.strip_suffix("\" ("));
    let text = match number {
        0 => {
            std::thread::sleep(SLOW);
            "25.3.1.1\n".to_owned()
        }
        1 => {
            let lines = tables.map(|name| format!("{name}\tvmprobe schema={version} x"));
            lines.chain([String::new()]).collect::<Vec<_>>().join("\n")
        }
        _ => {
            let Some(given) = given else { return Some(stream) };
            let head = "HTTP/1.1 200 OK\r\nX-ClickHouse-Format: Parquet\r\nConnection: close";
            write!(stream, "{head}\r\n\r\n").expect("it listens");
            // Who has had enough goes away.
            let _ = std::io::copy(&mut std::io::repeat(0).take(given), &mut stream);
            return None;
        }
    };
    let head = "HTTP/1.1 200 OK\r\nX-ClickHouse-Format: TabSeparatedRaw\r\nConnection: close";
    let length = text.len();
    write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{text}").expect("it listens");
    None
}

/// Runs the program, the server's URL on its standard input.
fn asked(url: &str, subcommand: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args([COMMAND_S_MAX, env!("CARGO_BIN_EXE_vmprobe-query")]).args(subcommand);
    command.args(["--clickhouse=-", &format!("--timeout-s={TIMEOUT_S}")]).args(arguments);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("the query program");
    let mut input = child.stdin.take().expect("its input");
    writeln!(input, "{url}").expect("it reads");
    drop(input);
    child.wait_with_output().expect("its end")
}

/// The time limit is that of the command, however many questions it asks, and a server that falls silent is one
/// that does not answer, whoever asks.
#[test]
fn a_server_that_falls_silent_is_unreachable_within_the_time_of_the_command() {
    let commands: [(Option<&str>, &[&str]); 3] =
        [(Some("topology"), &[]), (None, &["--local", "FROM windows"]), (None, &["SELECT 1"])];
    std::thread::scope(|scope| {
        for (subcommand, arguments) in commands {
            scope.spawn(move || {
                let (url, questions) = server(None);
                let output = asked(&url, subcommand, arguments);
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(3), "{arguments:?}: {said}");
                assert!(said.contains("does not answer") && !said.contains("secret"), "{said}");
                let limits: Vec<u32> = questions
                    .try_iter()
                    .map(|line| {
                        let rest = line.split_once("max_execution_time=").expect("a limit").1;
                        rest.split('&').next().expect("a number").parse().expect("a number")
                    })
                    .collect();
                // What the first took is not left to the others.
                assert_eq!(limits.first(), Some(&TIMEOUT_S), "{arguments:?}");
                let later = limits.get(1..).unwrap_or_default();
                assert!(later.len() == 2 && later.iter().all(|it| *it < TIMEOUT_S), "{limits:?}");
            });
        }
    });
}

/// Whatever a server gives that does not keep to `max_result_bytes`.
#[test]
fn an_answer_that_is_larger_than_it_may_be_is_not_taken() {
    const MEMORY_MIB: u64 = 64;
    let most = (MEMORY_MIB << 20) / 4;
    let ask = |octets| {
        let (url, questions) = server(Some(octets));
        let memory = format!("--memory-mib={MEMORY_MIB}");
        let output = asked(&url, None, &["--local", &memory, "FROM windows"]);
        let limit = format!("max_result_bytes={most}&");
        assert!(questions.try_iter().all(|line| line.contains(&limit)));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let told = format!("the answer is larger than {most} bytes (a shorter span is smaller)");
    let (code, said) = ask(most + 1);
    assert!(code == Some(4) && said.contains(&told), "{code:?} {said}");
    let (code, said) = ask(most);
    assert!(code != Some(0) && !said.contains("larger than"), "no records, and taken: {said}");
}

/// Whoever shall say the URL, and does not.
#[test]
fn an_input_that_does_not_come_is_not_waited_for() {
    let mut command = Command::new("timeout");
    command.args([COMMAND_S_MAX, env!("CARGO_BIN_EXE_vmprobe-query"), "--clickhouse=-"]);
    command.args(["--timeout-s=1", "SELECT 1"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the query program");
    let input = child.stdin.take();
    let output = child.wait_with_output().expect("its end");
    drop(input);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("stopped after 1 s"), "{said}");
}

#[test]
fn an_input_without_a_url_is_an_error() {
    let output = asked("", None, &["SELECT 1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no URL in its first line"), "{said}");
}
