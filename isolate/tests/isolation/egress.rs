//! Other machines: what a sandbox reaches when it is let out, what it does not, and that nothing of it is left or opens by a death.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vilya_isolate::{CgroupPreference, EgressOptions, Reach, Spec, StartError, sweep};

use crate::death::{PATIENCE_MS, dies, pidfd};
use crate::internet::{HOST, Internet, METADATA, NAMESERVER, PRIVATE, SERVICE, TRAP, run};
use crate::support::{PYTHON, Room, Running, native, python, unique};

const PATIENCE: Duration = Duration::from_secs(120);
/// Set for a process that plays the worker: the state directory and the worker's id.
const ROLE: &str = "VILYA_ISOLATE_TEST_EGRESS_WORKER";

/// Tries each of `[name, protocol, address, port]`: what answered, or why nothing did.
const TRYING: &str = r#"
import errno, socket, sys
def attempt(protocol, host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as s:
        s.settimeout(3)
        try:
            s.connect((host, port))
            if protocol == "udp":
                s.send(b"asked")
            return s.recv(100).decode().strip()
        except TimeoutError: return "silence"
        except OSError as error: return errno.errorcode.get(error.errno, str(error))
def attempts(*these):
    for name, protocol, host, port in these: print(name, attempt(protocol, host, port), flush=True)
"#;

fn options() -> EgressOptions {
    EgressOptions {
        range: "10.213.0.0/16".parse().expect("a range"),
        denied: vec!["10.77.0.0/16".parse().expect("a block")],
        nameservers: vec![NAMESERVER.parse().expect("an address")],
        connections: 64,
    }
}

fn let_out(options: EgressOptions) -> Room {
    let mut room = Room::unprepared();
    room.native.allow_egress(options);
    room
}

fn probe(program: &str) -> Spec {
    let reach = Reach::Egress { nameservers: options().nameservers };
    Spec { reach, ..python(&format!("{TRYING}\n{program}")) }
}

/// A service at every address of this host, and its port.
fn host_service() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    let socket = UdpSocket::bind(("0.0.0.0", port)).expect("the same port");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.expect("a connection").write_all(b"the host");
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(b"the host", peer);
        }
    });
    port
}

/// What a service says first.
fn greeting(address: &str, port: u16) -> String {
    let mut stream = TcpStream::connect((address, port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("its mode");
    let mut said = [0; 100];
    let length = stream.read(&mut said).expect("it speaks");
    String::from_utf8_lossy(&said[..length]).into_owned()
}

/// The interfaces of sandboxes on this host.
fn links() -> Vec<String> {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").expect("this namespace has interfaces");
    let names = devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    names.filter(|name| name.starts_with("vy")).collect()
}

fn is_refused(said: Option<&String>) -> bool {
    said.is_some_and(|said| ["EHOSTUNREACH", "silence", "ENETUNREACH"].contains(&said.as_str()))
}

#[test]
fn other_machines_are_reached_and_nothing_that_is_denied() {
    let Some(mut internet) = Internet::around("egress::other_machines_are_reached_and_nothing_that_is_denied") else {
        return;
    };
    let port = host_service();
    // From outside everything comes to something.
    assert_eq!(greeting(SERVICE, 7000), format!("{HOST} at {SERVICE}\n"));
    assert_eq!(greeting(METADATA, 80), format!("{HOST} at {METADATA}\n"));
    assert_eq!(greeting(TRAP, 80), format!("{HOST} at {METADATA}\n"), "it is translated");
    assert_eq!(greeting(PRIVATE, 80), format!("{HOST} at {PRIVATE}\n"));
    assert_eq!(greeting(HOST, port), "the host");
    run(&format!("iptables -w -t nat -A PREROUTING -d 203.0.113.98 -p tcp -j DNAT --to-destination {HOST}:{port}"));
    run("iptables -w -t nat -A PREROUTING -d 203.0.113.97 -j DNAT --to-destination 10.213.0.3");
    let before = internet.seen();

    let mut room = let_out(options());
    let mut neighbour = room
        .start(&probe(
            "l = socket.create_server(('0.0.0.0', 9000)); u = socket.socket(type=socket.SOCK_DGRAM); u.bind(('0.0.0.0', 9000))\n\
             print(socket.create_connection(('203.0.113.7', 7000)).getsockname()[0], flush=True)\n\
             while True: l.accept()[0].sendall(b'a neighbour')",
        ))
        .expect("it starts");
    let address = neighbour.line();
    assert_eq!(address, "10.213.0.3", "the address that is tried below");
    let ran = room.run(&probe(&format!(
        r#"
attempts(
    ("tcp", "tcp", "{SERVICE}", 7000),
    ("udp", "udp", "{SERVICE}", 7000),
    ("metadata", "tcp", "{METADATA}", 80),
    ("metadata-udp", "udp", "{METADATA}", 7000),
    ("trap", "tcp", "{TRAP}", 80),
    ("trap-udp", "udp", "{TRAP}", 7000),
    ("trap-host", "tcp", "203.0.113.98", 80),
    ("trap-neighbour", "tcp", "203.0.113.97", 9000),
    ("private", "tcp", "{PRIVATE}", 80),
    ("nameserver", "tcp", "{NAMESERVER}", 7000),
    ("host", "tcp", "{HOST}", {port}),
    ("host-udp", "udp", "{HOST}", {port}),
    ("gateway", "tcp", "10.213.0.4", {port}),
    ("gateway-of-other", "tcp", "10.213.0.2", {port}),
    ("neighbour", "tcp", "10.213.0.3", 9000),
    ("neighbour-udp", "udp", "10.213.0.3", 9000),
    ("multicast", "udp", "224.0.0.1", 7000),
    ("version-6", "udp", "2001:db8::1", 7000),
)
print("own-loopback", attempt("tcp", "127.0.0.1", {port}))
print("name", socket.getaddrinfo("some.name.example", 7000, socket.AF_INET)[0][4][0])
print("interfaces", ",".join(sorted(line.split()[-1] for line in open("/proc/net/if_inet6"))))
print("resolver", open("/etc/resolv.conf").read().strip())
"#
    )));
    let seen = ran.answers();
    let of = |name: &str| seen.get(name).map(String::as_str);
    assert_eq!(of("tcp"), Some(&*format!("{HOST} at {SERVICE}")), "by the host's address");
    assert_eq!(of("udp"), Some("asked"));
    assert_eq!(of("name"), Some(SERVICE));
    assert_eq!(of("resolver"), Some(&*format!("nameserver {NAMESERVER}")));
    assert_eq!(of("own-loopback"), Some("ECONNREFUSED"));
    assert_eq!(of("interfaces"), Some("lo"), "no address of version 6 but the loopback's");
    for denied in [
        "metadata",
        "metadata-udp",
        "trap",
        "trap-udp",
        "trap-host",
        "trap-neighbour",
        "private",
        "nameserver",
        "host",
        "host-udp",
        "gateway",
        "gateway-of-other",
        "neighbour",
        "neighbour-udp",
        "multicast",
        "version-6",
    ] {
        assert!(is_refused(seen.get(denied)), "{denied}: {:?}", seen.get(denied));
    }
    for told in ["metadata", "trap", "private", "host", "neighbour"] {
        assert_eq!(of(told), Some("EHOSTUNREACH"), "{told}: who may not is told at once");
    }
    let arrived = internet.seen().split_off(before.len() - 1);
    assert!(!arrived.contains(METADATA) && !arrived.contains(PRIVATE), "{arrived}");
    assert!(arrived.contains(SERVICE), "{arrived}");
    neighbour.started.remains.kill();
    neighbour.finish();
}

/// With a privilege that no sandbox has: what the rules are worth without the rest.
#[test]
fn a_source_that_is_not_its_own_goes_nowhere() {
    let Some(mut internet) = Internet::around("egress::a_source_that_is_not_its_own_goes_nowhere") else { return };
    let mut room = let_out(options());
    let mut running = room
        .start(&probe("print('up', flush=True); sys.stdin.read(); import time; time.sleep(600)"))
        .expect("it starts");
    assert_eq!(running.line(), "up");
    let pid = running.started.pid;
    let link = links().pop().expect("it has a link");
    run(&format!("ip -6 address add fd00::1/64 dev {link} nodad"));
    let listens = UdpSocket::bind("[fd00::1]:7000").expect("a socket of version 6");
    let program = format!(
        r#"
import socket, struct, subprocess
def packet(source, said):
    udp = struct.pack(">HHHH", 7001, 7000, 8 + len(said), 0) + said
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton("{SERVICE}"))
    return head + udp
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
# The host's, its gateway's, a neighbour's, another machine's, one of nobody.
for source in ("{HOST}", "10.213.0.2", "10.213.0.5", "198.51.100.77", "127.0.0.1", "0.0.0.1"):
    raw.sendto(packet(source, b"forged " + source.encode()), ("{SERVICE}", 0))
subprocess.run("ip -6 address add fd00::2/64 dev eth0 nodad".split(), check=True)
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.sendto(b"version 6", ("fd00::1", 7000))
raw.sendto(packet("10.213.0.3", b"honest"), ("{SERVICE}", 0))
own = socket.create_connection(("{SERVICE}", 7000), 20)
own.sendall(b"last"); own.recv(1)
"#
    );
    let inside = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "--", PYTHON, "-I", "-c", &program])
        .output()
        .expect("it runs");
    assert!(inside.status.success(), "{}", String::from_utf8_lossy(&inside.stderr));
    let mut seen = internet.seen();
    while !seen.contains("honest") {
        seen = internet.seen();
    }
    assert!(!seen.contains("forged"), "{seen}");
    listens.set_nonblocking(true).expect("its mode");
    assert!(listens.recv(&mut [0; 100]).is_err(), "a packet of version 6 came to the host");
    running.started.remains.kill();
    running.finish();
}

#[test]
fn connections_of_one_sandbox_are_bounded_and_others_have_theirs() {
    let name = "egress::connections_of_one_sandbox_are_bounded_and_others_have_theirs";
    let Some(_internet) = Internet::around(name) else { return };
    let mut room = let_out(EgressOptions { connections: 5, ..options() });
    let opens = format!(
        r#"
held = []
for number in range(8):
    try: held.append(socket.create_connection(("{SERVICE}", 7000), 20)); print(number, "open", flush=True)
    except OSError as error: print(number, errno.errorcode.get(error.errno, str(error)), flush=True)
held.pop().close()
print("held", flush=True)
import time; time.sleep(600)
"#
    );
    let (mut one, mut two) =
        (room.start(&probe(&opens)).expect("it starts"), room.start(&probe(&opens)).expect("it starts"));
    for running in [&mut one, &mut two] {
        let said: Vec<String> = std::iter::from_fn(|| Some(running.line()).filter(|line| line != "held")).collect();
        let open = said.iter().filter(|line| line.ends_with("open")).count();
        assert_eq!((open, said.len()), (5, 8), "{said:?}");
        assert!(said[5..].iter().all(|line| line.ends_with("EHOSTUNREACH")), "{said:?}");
    }
    for running in [one, two] {
        running.started.remains.kill();
        running.finish();
    }
}

/// Does nothing unless this process was started to play the worker.
#[test]
fn the_worker_when_this_process_plays_it() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (state, worker_id) = role.split_once('|').expect("two parts");
    let mut native = native(state.as_ref(), worker_id, CgroupPreference::Auto);
    native.allow_egress(options());
    let mut running: Running =
        crate::support::start(&mut native, &probe("print('up', flush=True); import time; time.sleep(600)"))
            .expect("it starts");
    assert_eq!(running.line(), "up");
    eprintln!("sandbox {}", running.started.pid);
    loop {
        std::thread::park();
    }
}

#[test]
fn what_a_killed_worker_leaves_is_shut_and_the_next_start_removes_it() {
    let name = "egress::what_a_killed_worker_leaves_is_shut_and_the_next_start_removes_it";
    let Some(mut internet) = Internet::around(name) else { return };
    let port = host_service();
    let state = tempfile::tempdir().expect("a directory");
    let worker_id = unique("worker");
    let mut worker = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "egress::the_worker_when_this_process_plays_it", "--nocapture"])
        .env(ROLE, format!("{}|{worker_id}", state.path().display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(worker.stderr.take().expect("its errors")).lines().map_while(Result::ok);
    let pid: i32 = lines
        .find_map(|line| line.strip_prefix("sandbox ").and_then(|pid| pid.parse().ok()))
        .expect("it starts a sandbox");
    let sandbox = pidfd(pid);
    // Somebody who stays in the sandbox's network, so that its link outlives it.
    let mut stays = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "--", PYTHON, "-I", "-c"])
        .arg(format!(
            "{TRYING}\nprint('inside', flush=True); sys.stdin.readline()\nattempts(('service', 'tcp', '{SERVICE}', 7000), ('metadata', 'tcp', '{METADATA}', 80), ('host', 'tcp', '{HOST}', {port}))"
        ))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut said = BufReader::new(stays.stdout.take().expect("its output")).lines().map_while(Result::ok);
    assert_eq!(said.next().as_deref(), Some("inside"));
    worker.kill().and_then(|()| worker.wait()).expect("it runs no more");
    assert!(dies(sandbox.as_fd(), PATIENCE_MS));
    assert_eq!(links(), ["vy0ad50003"], "there is something that could be open");
    stays.stdin.take().expect("its input").write_all(b"now\n").expect("it listens");
    let said: Vec<String> = said.collect();
    assert_eq!(said[1..], ["metadata EHOSTUNREACH", "host EHOSTUNREACH"]);
    assert!(!internet.seen().contains(METADATA));
    stays.wait().expect("it ends");
    // Whether or not the link has gone with its namespace, the table is there.
    let swept = sweep(state.path(), &worker_id).expect("swept");
    assert!((1..=2).contains(&swept.links) && swept.stuck.is_empty(), "{swept:?}");
    assert_eq!(links(), Vec::<String>::new());
    assert_eq!(sweep(state.path(), &worker_id).expect("swept again").links, 0);
    crate::support::remove_bases(state.path());
}

#[test]
fn two_hundred_starts_leave_nothing() {
    let Some(_internet) = Internet::around("egress::two_hundred_starts_leave_nothing") else { return };
    // Six addresses, so that each is used again many times.
    let range = "10.213.0.0/28".parse().expect("a range");
    let mut room = let_out(EgressOptions { range, ..options() });
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("this process has descriptors").count();
    let mut before = 0;
    for cycle in 0..200 {
        let ends = if cycle % 2 == 0 { "" } else { "print('up', flush=True); import time; time.sleep(600)" };
        let connects = format!("held = socket.create_connection(('{SERVICE}', 7000), 20)\n{ends}");
        let mut running = room.start(&probe(&connects)).unwrap_or_else(|error| panic!("start {cycle}: {error}"));
        if cycle % 2 == 1 {
            assert_eq!(running.line(), "up");
            assert!(!links().is_empty(), "there is something that could be left");
            running.started.remains.kill();
        }
        running.finish();
        if cycle % 20 == 0 {
            let failing = Spec { command: vec!["/usr/bin/no-such-program".into()], ..probe("") };
            assert!(matches!(room.start(&failing), Err(StartError::Step { .. })));
        }
        // The first has opened what stays open.
        if cycle == 0 {
            before = descriptors();
        }
    }
    assert_eq!(descriptors(), before);
    let remembered = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").expect("the kernel's connections");
    assert!(!remembered.contains("src=10.213."), "{remembered}");
    let worker_id = room.worker_id.clone();
    let state = room.close();
    assert_eq!(links(), Vec::<String>::new(), "and its links before");
    // The kernel ends namespaces in its own time.
    let since = Instant::now();
    loop {
        let namespaces = run("ip netns list-id");
        if namespaces.lines().count() <= 1 {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "besides that of the other machines: {namespaces}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(sweep(state.path(), &worker_id).expect("swept").links, 0, "the table went with the worker");
}

#[test]
fn who_cannot_be_let_out_is_told_what_to_do() {
    let mut room = Room::unprepared();
    let refused = room.start(&probe("")).map(drop).expect_err("nobody was let out");
    assert!(refused.to_string().contains("sandbox.egress"), "{refused}");
    if !room.is_root() {
        room.native.allow_egress(options());
        let refused = room.start(&probe("")).map(drop).expect_err("not by an ordinary user");
        assert!(refused.to_string().contains("run the worker as root"), "{refused}");
    }
    let Some(mut internet) = Internet::around("egress::who_cannot_be_let_out_is_told_what_to_do") else { return };
    let mut room = let_out(EgressOptions { range: "198.51.100.0/25".parse().expect("a range"), ..options() });
    let refused = room.start(&probe("")).map(drop).expect_err("the host's own addresses");
    assert!(refused.to_string().contains("set sandbox.egress_range"), "{refused}");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("this namespace is ours");
    let mut room = let_out(options());
    let refused = room.start(&probe("")).map(drop).expect_err("nothing is passed on");
    assert!(refused.to_string().contains("sysctl -w net.ipv4.ip_forward=1"), "{refused}");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("this namespace is ours");
    // Mended, it works without another set-up; and so it does when somebody has taken every table away.
    let ask = probe(&format!("attempts(('service', 'tcp', '{SERVICE}', 7000), ('metadata', 'tcp', '{METADATA}', 80))"));
    let reaches = |room: &mut Room| {
        let ran = room.run(&Spec { name: unique("asks"), ..ask.clone() }).answers();
        assert_eq!(ran["service"], format!("{HOST} at {SERVICE}"));
        assert_eq!(ran["metadata"], "EHOSTUNREACH");
    };
    reaches(&mut room);
    assert!(sweep(room.state.path(), &room.worker_id).expect("swept").links > 0, "its table");
    reaches(&mut room);
    let full = EgressOptions { range: "10.214.0.0/28".parse().expect("a range"), ..options() };
    let mut small = let_out(full);
    let waits = probe("print('up', flush=True); import time; time.sleep(600)");
    let held: Vec<Running> = (0..6)
        .map(|number| {
            small.start(&Spec { name: unique(&format!("held{number}")), ..waits.clone() }).expect("it starts")
        })
        .collect();
    let refused = small.start(&waits).map(drop).expect_err("no address is left");
    assert!(refused.to_string().contains("every address of 10.214.0.0/28 is in use"), "{refused}");
    // Somebody keeps their networks; the links in them are shut all the same, and make room.
    let kept: Vec<File> = held
        .iter()
        .map(|running| File::open(format!("/proc/{}/ns/net", running.started.pid)).expect("it runs"))
        .collect();
    for running in held {
        running.started.remains.kill();
        running.finish();
    }
    assert_eq!(links().len(), kept.len());
    let inside = format!("--net=/proc/{}/fd/{}", std::process::id(), kept[0].as_raw_fd());
    let program = format!("{TRYING}\nattempts(('service', 'udp', '{SERVICE}', 7000))");
    let left = Command::new("nsenter").args([&inside, "--", PYTHON, "-I", "-c", &program]).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "service silence\n");
    // What is asked after it is answered after it.
    let honest = UdpSocket::bind((HOST, 0)).expect("a socket");
    honest.set_read_timeout(Some(PATIENCE)).expect("its mode");
    honest.send_to(b"honest", (SERVICE, 7000)).expect("it is sent");
    honest.recv(&mut [0; 100]).expect("it is answered");
    assert!(!internet.seen().contains("10.214."), "what was shut came through");
    small.run(&Spec { name: unique("again"), ..probe("") });
}
