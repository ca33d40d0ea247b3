// Brings snapshots: server-sent events, polling where they fail, and back again.

const STREAM = '/api/v1/live/stream';
const SNAPSHOT = '/api/v1/live';
const POLL_MS = 2000;
const RETRY_MS_MIN = 1000;
const RETRY_MS_MAX = 15000;
const ANSWER_MS_MAX = 5000;

/**
 * Follows the probe for as long as the page is open. `onState` gets `live`, `polling` (the
 * stream is refused, answers come) or `down` (nothing answers).
 */
export function follow(onSnapshot, onState) {
  let failures = 0;

  function listen() {
    const source = new EventSource(STREAM);
    source.addEventListener('live', (event) => {
      failures = 0;
      take(event.data, 'live');
    });
    source.addEventListener('error', () => {
      source.close();
      failures += 1;
      pollUntil(performance.now() + wait());
    });
  }

  // Doubles with each failure; the random part keeps many pages from coming back at once.
  function wait() {
    const grown = RETRY_MS_MIN * 2 ** Math.min(failures - 1, 6);
    return Math.min(grown, RETRY_MS_MAX) * (0.8 + 0.4 * Math.random());
  }

  async function pollUntil(end) {
    await poll();
    const left = end - performance.now();
    if (left <= 0) listen();
    else setTimeout(() => (left <= POLL_MS ? listen() : pollUntil(end)), Math.min(left, POLL_MS));
  }

  async function poll() {
    try {
      const answer = await fetch(SNAPSHOT, { signal: AbortSignal.timeout(ANSWER_MS_MAX) });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      take(await answer.text(), 'polling');
    } catch {
      onState('down');
    }
  }

  function take(text, state) {
    onState(state);
    onSnapshot(JSON.parse(text));
  }

  listen();
}
