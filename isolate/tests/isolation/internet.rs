//! A host of a test's own, behind which other machines are played.
//!
//! Owns: the network namespace that a test and its workers run in, another that stands for everything else, and the way between. Does not
//! know: sandboxes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Set for the process that is in the namespace.
const ROLE: &str = "VILYA_TEST_ON_A_HOST_OF_ITS_OWN";
const PROGRAM: &str = include_str!("internet.py");

/// Its address on the way to the others.
pub(crate) const HOST: &str = "198.51.100.2";
/// A machine that has a service at port 7000, TCP and UDP; its name is any.
pub(crate) const SERVICE: &str = "203.0.113.7";
pub(crate) const METADATA: &str = "169.254.169.254";
/// In the private network of the host.
pub(crate) const PRIVATE: &str = "10.77.0.8";
pub(crate) const NAMESERVER: &str = "10.77.0.53";
/// What the host's own rules translate into the address of metadata.
pub(crate) const TRAP: &str = "203.0.113.99";

/// The other machines.
pub(crate) struct Internet {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Internet {
    /// Runs the test of this name once more, in a network namespace of its own; there, gives what is around it.
    pub(crate) fn around(test: &str) -> Option<Internet> {
        if std::env::var_os(ROLE).is_some() {
            return Some(Internet::start());
        }
        let is_root = std::fs::metadata("/proc/self").expect("this process").uid() == 0;
        let lacks = ["ip", "unshare", "iptables"].into_iter().find(|program| !can_run(program));
        if let (false, _) | (_, Some(_)) = (is_root, lacks) {
            println!("skipped: it takes root and {}", lacks.unwrap_or("nothing else"));
            return None;
        }
        let own = std::env::current_exe().expect("this program");
        let output = Command::new("unshare")
            .args(["--net", "--"])
            .arg(own)
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, "1")
            .output()
            .expect("it runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{said}");
        assert!(output.status.success(), "the test on a host of its own");
        assert!(said.contains("1 passed"), "no such test");
        None
    }

    fn start() -> Internet {
        let mut process = Command::new("unshare")
            .args(["--net", "--", "/usr/bin/python3", "-I", "-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let questions = process.stdin.take().expect("its input");
        let answers = BufReader::new(process.stdout.take().expect("its output"));
        let mut internet = Internet { process, questions, answers };
        let pid = internet.process.id();
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).ok() == std::fs::read_link("/proc/self/ns/net").ok() {
            std::thread::yield_now();
        }
        run(&format!("ip link add up0 type veth peer name up1 netns {pid}"));
        run("ip link set lo up");
        run("ip link set up0 up");
        run(&format!("ip address add {HOST}/24 dev up0"));
        run("ip route add default via 198.51.100.1");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("this namespace is ours");
        for chain in ["PREROUTING", "OUTPUT"] {
            run(&format!("iptables -w -t nat -A {chain} -d {TRAP} -j DNAT --to-destination {METADATA}"));
        }
        assert_eq!(internet.asked("up"), "ready");
        internet
    }

    fn asked(&mut self, question: &str) -> String {
        writeln!(self.questions, "{question}").expect("it listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        line.trim_end().to_owned()
    }

    /// Everything that arrived, each as a list of the protocol, at which address, from which, at which port, and for UDP what it said.
    pub(crate) fn seen(&mut self) -> String {
        self.asked("seen")
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn can_run(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Runs a command that has to succeed, and gives what it says.
pub(crate) fn run(command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
