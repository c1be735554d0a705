//! What one invocation leaves, and who finds it. The promise: a sandbox serves one version of one function, whose invocations share all that
//! is in it, one after the other or at once; nothing of it reaches another function, another version, or another sandbox, and an answer
//! reaches the caller whose invocation runs where it was given.

use serde_json::{Value, json};

use super::worker::{Worker, await_log};

/// Leaves what can be left, and looks for all of it: in files, in the process, among processes, at addresses and in the rings, which are
/// read from end to end. What is looked for arrives turned over, so that asking for it leaves no trace of it.
const LEAVES: &str = r#"
import json, os, signal, socket, subprocess, threading, time
import vilya

left = []
ticks = 0

def tick():
    global ticks
    while True:
        ticks += 1
        time.sleep(0.001)

def leave(payload):
    for path in ('/tmp/left', '/dev/shm/left'):
        open(path, 'w').close()
    left.append(bytes(payload[-100:]))
    os.environ['LEFT'] = 'yes'
    subprocess.Popen(['/usr/bin/sleep', '600'], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for address in (('127.0.0.1', 40111), '\0left'):
        server = socket.socket(socket.AF_UNIX if type(address) is str else socket.AF_INET)
        server.bind(address); server.listen(); left.append(server)
    threading.Thread(target=tick, daemon=True).start()
    while not ticks:
        time.sleep(0.001)

def reached(family, address):
    try:
        socket.socket(family).connect(address)
        return True
    except OSError:
        return False

def in_ring(fd, wanted):
    at, found = 0, False
    while not found:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return found
        found = wanted in os.pread(fd, 1 << 20, at)
        at += (1 << 20) - len(wanted)
    return found

def look(wanted):
    processes = [name for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid()]
    return {
        'files': [os.path.exists(path) for path in ('/tmp/left', '/dev/shm/left')],
        'process': [bool(left), 'LEFT' in os.environ, ticks > 0],
        'processes': len(processes),
        'addresses': [reached(socket.AF_INET, ('127.0.0.1', 40111)), reached(socket.AF_UNIX, '\0left')],
        'rings': [in_ring(fd, wanted) for fd in (3, 4)],
    }

@vilya.raw
def handler(request, context):
    order = bytes(request[:4])
    if order == b'echo':
        leave(request)
        return bytes(request)
    return json.dumps(look(bytes(byte ^ 0xff for byte in bytes(request[4:])))).encode()
"#;

/// A secret of one caller, and how it is asked for.
const SECRET: &[u8] = b"a secret of one caller, which no other function ever sees";

fn looks(worker: &Worker, name: &str) -> Value {
    let turned: Vec<u8> = SECRET.iter().map(|byte| byte ^ 0xff).collect();
    worker.client().invoke(name, &[b"look", &turned[..]].concat()).expect(200).json()
}

#[test]
fn what_an_invocation_leaves_is_found_by_its_own_version_alone() {
    let worker = Worker::start();
    let all = json!({
        "files": [true, true], "process": [true, true, true], "processes": 1, "addresses": [true, true], "rings": [true, true],
    });
    let nothing = json!({
        "files": [false, false], "process": [false, false, false], "processes": 0, "addresses": [false, false],
        "rings": [false, false],
    });
    worker.deploy_python("keeper", LEAVES, "");
    worker.deploy_python("other", LEAVES, "");
    // In the slots, and by a payload of its own size in the lanes.
    for bytes in [64, 300_000] {
        let mut payload = vec![b'.'; bytes];
        payload.extend_from_slice(SECRET);
        let answer = worker.client().invoke("keeper", &[b"echo", &payload[..]].concat()).expect(200);
        assert!(answer.body.ends_with(SECRET));
        // Another caller of the same version finds all of it: whoever writes a function keeps its callers apart.
        assert_eq!(looks(&worker, "keeper"), all);
        assert_eq!(looks(&worker, "other"), nothing);
        // Its rings and its memory have gone back to the system when this one's sandbox is made.
        worker.deploy_python("keeper", LEAVES, "");
        worker.await_metric("vilya_sandboxes", "", |alive| alive <= 1.0);
        assert_eq!(looks(&worker, "keeper"), nothing);
        worker.deploy_python("keeper", LEAVES, "");
    }
}

/// Answers for others, as the runtime would; the request says for whom, and how often.
const FORGER: &str = r#"
import gc, time
channel = [it for it in gc.get_objects() if type(it).__name__ == 'Channel'][0]

def handler(event, context):
    invocation, lane = context._submission[:2]
    channel.publish(event['kind'], event.get('invocation', invocation), event.get('lane', lane), b'', b'"forged"')
    if event.get('stays'):
        time.sleep(600)
    return 'own'
"#;

/// Says which invocation it is, and waits until another tells it to go on.
const VICTIM: &str = r#"
import threading
go_on = threading.Event()
def handler(event, context):
    if event == 'go on':
        go_on.set()
        return 'told'
    print('runs', context._submission[0], flush=True)
    go_on.wait(60)
    return 'true'
"#;

#[test]
fn nobody_answers_for_an_invocation_of_another_sandbox() {
    let worker = Worker::start();
    worker.deploy_python("victim", VICTIM, "concurrency = 2\ntimeout = \"60s\"");
    worker.deploy_python("forger", FORGER, "timeout = \"60s\"");
    let mut waits = worker.client();
    let victim = std::thread::spawn(move || waits.invoke("victim", b"\"wait\"").expect(200).json());
    let log = await_log(&worker, "victim", 1);
    let id: u64 = log
        .split("runs ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|id| id.parse().ok())
        .expect("its number");
    let poisoned = worker.metric("vilya_sandboxes_poisoned_total", "");
    // Of kind 2 (returned) on its own lane, and on one that it does not have.
    for (kind, lane) in [(2, 0), (3, 0), (2, 1)] {
        let order = json!({ "kind": kind, "invocation": id, "lane": lane, "stays": true }).to_string();
        let answer = worker.client().invoke("forger", order.as_bytes()).expect(502);
        assert!(answer.text().contains("answered"), "{}", answer.text());
    }
    assert_eq!(worker.metric("vilya_sandboxes_poisoned_total", ""), poisoned + 3.0);
    assert_eq!(worker.client().invoke("victim", b"\"go on\"").expect(200).json(), "told");
    assert_eq!(victim.join().expect("it is answered"), "true");
}

/// An answer that is given twice reaches nobody the second time, whoever comes to the sandbox next.
#[test]
fn an_answer_after_the_answer_reaches_nobody() {
    let worker = Worker::start();
    worker.deploy_python("forger", FORGER, "");
    let mut client = worker.client();
    for _ in 0..20 {
        let answer = client.invoke("forger", br#"{"kind": 2}"#);
        // The first is the caller's, unless the worker sees both at once; then it believes neither.
        assert!(answer.status == 502 || answer.json() == "forged", "{} {}", answer.status, answer.text());
    }
    worker.await_metric("vilya_sandboxes_poisoned_total", "", |poisoned| poisoned > 0.0);
}
