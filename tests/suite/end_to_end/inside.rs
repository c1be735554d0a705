//! What a function sees and can do from inside its sandbox.

use super::worker::Worker;

/// Reports on everything that a sandbox promises; the assertions are outside.
const PROBE: &str = r#"
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments)
    return 'allowed' if result >= 0 else ctypes.get_errno()

def attempt(action):
    try:
        action()
        return 'allowed'
    except OSError as error:
        return error.errno

def attempt_link(fd):
    try:
        return os.readlink('/proc/self/fd/' + fd)
    except OSError:
        return None

def status(field):
    with open('/proc/self/status') as lines:
        for line in lines:
            if line.startswith(field + ':'):
                return line.split()[1]

def handler(event, context):
    return {
        'pid': os.getpid(),
        'processes': sorted(int(name) for name in os.listdir('/proc') if name.isdigit()),
        'interfaces': [name for _, name in socket.if_nameindex()] if False else sorted(
            line.split(':')[0].strip() for line in open('/proc/self/net/dev') if ':' in line),
        'connect': attempt(lambda: socket.create_connection(('127.0.0.1', event['port']), 2).close()),
        'write_usr': attempt(lambda: open('/usr/probe', 'w').close()),
        'write_function': attempt(lambda: open('/function/probe', 'w').close()),
        'write_etc': attempt(lambda: open('/etc/probe', 'w').close()),
        'write_tmp': attempt(lambda: open('/tmp/probe', 'w').close()),
        'write_sysctl': attempt(lambda: open('/proc/sys/kernel/hostname', 'w').write('x')),
        'shadow': os.path.exists('/etc/shadow'),
        'root_home': os.path.exists('/root'),
        'state': os.path.exists(event['state']),
        'cap_eff': status('CapEff'), 'cap_bnd': status('CapBnd'),
        'no_new_privs': status('NoNewPrivs'), 'seccomp': status('Seccomp'),
        'descriptors': sorted(link for link in (attempt_link(fd) for fd in os.listdir('/proc/self/fd')) if link),
        'mount': call(165, b'none', b'/tmp', b'tmpfs', 0, None),
        'ptrace': call(101, 0, 0, 0, 0),
        'bpf': call(321, 0, None, 0),
        'io_uring_setup': call(425, 8, None),
        'unshare': call(272, 0x10000000),
        'setns': call(308, 0, 0),
        'keyctl': call(250, 0, 0),
        'pdeathsig': call(157, 1, 0),
        'uid': os.getuid(),
        'cwd': os.getcwd(),
        'variables': sorted(os.environ),
    }
"#;

#[test]
fn a_sandbox_is_a_world_of_its_own() {
    let worker = Worker::start();
    worker.deploy_python("probe", PROBE, "");
    let question = serde_json::json!({ "port": worker.address.port(), "state": worker.state() }).to_string();
    let report = worker.client().invoke("probe", question.as_bytes()).expect(200).json();
    let eperm = serde_json::json!(1);
    assert!(report["pid"].as_i64().is_some_and(|pid| pid < 10), "{report}");
    assert_eq!(report["processes"], serde_json::json!([report["pid"]]), "no other process is seen");
    assert_eq!(report["interfaces"], serde_json::json!(["lo"]));
    assert_ne!(report["connect"], "allowed", "the worker's own port is out of reach");
    for place in ["write_usr", "write_function", "write_etc", "write_sysctl"] {
        assert_ne!(report[place], "allowed", "{place}");
    }
    assert_eq!(report["write_tmp"], "allowed");
    for host_file in ["shadow", "root_home", "state"] {
        assert_eq!(report[host_file], false, "{host_file}");
    }
    assert_eq!(report["cap_eff"], "0000000000000000");
    assert_eq!(report["cap_bnd"], "0000000000000000");
    assert_eq!(report["no_new_privs"], "1");
    assert_eq!(report["seccomp"], "2");
    for call in ["mount", "ptrace", "bpf", "io_uring_setup", "unshare", "setns", "keyctl", "pdeathsig"] {
        let enosys = serde_json::json!(38);
        assert!(report[call] == eperm || report[call] == enosys, "{call}: {}", report[call]);
    }
    assert_ne!(report["uid"], 0);
    assert_eq!(report["cwd"], "/function");
    // The runtime duplicates its two regions when it maps them; nothing else of the host is open.
    let open: Vec<String> = serde_json::from_value(report["descriptors"].clone()).expect("links");
    let expected = ["/dev/null", "pipe:[", "/memfd:vilya-down", "/memfd:vilya-up", "anon_inode:[eventfd]", "/proc/"];
    assert!(open.iter().all(|link| expected.iter().any(|start| link.starts_with(start))), "{open:?}");
    let variables: Vec<String> = serde_json::from_value(report["variables"].clone()).expect("names");
    assert!(
        variables
            .iter()
            .all(|name| name.starts_with("VILYA_") || ["PATH", "HOME", "LANG", "TZ", "LC_CTYPE"].contains(&&**name)),
        "{variables:?}"
    );
}

#[test]
fn two_functions_do_not_see_each_other() {
    let worker = Worker::start();
    let code = "import os\ndef handler(event, context):\n    seen = os.path.exists('/tmp/mark')\n    open('/tmp/mark', 'w').close()\n    return [seen, os.environ['VILYA_FUNCTION'], os.uname().nodename]\n";
    worker.deploy_python("one", code, "");
    worker.deploy_python("two", code, "");
    let mut client = worker.client();
    assert_eq!(client.invoke("one", b"").expect(200).json(), serde_json::json!([false, "one", "function"]));
    assert_eq!(client.invoke("two", b"").expect(200).json(), serde_json::json!([false, "two", "function"]));
    assert_eq!(client.invoke("one", b"").expect(200).json(), serde_json::json!([true, "one", "function"]));
}
