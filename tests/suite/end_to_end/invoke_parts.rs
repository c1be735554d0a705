//! `vilya invoke` of a function that answers in parts, over each protocol.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use super::parts::deploy;
use super::worker::{Worker, worker_command};

fn invoke(worker: &Worker, protocol: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(worker_command());
    command.args(["--server", &format!("http://{}", worker.address), "invoke", "parts", "--protocol", protocol]);
    command.args(["--wire-address", &worker.wire_address.to_string()]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command runs")
}

#[test]
fn the_command_shows_parts_as_they_come_and_says_when_they_are_not_all() {
    let worker = Worker::start_with(&["cores.shards=2", "server.max_payload=16MiB"]);
    deploy(&worker, "parts", "timeout = \"10m\"");
    for protocol in ["http", "binary"] {
        // The answer has no end: what is read was shown before it. Who has enough ends it.
        let mut endless = invoke(&worker, protocol, &["-d", "parts endless"]);
        let mut lines = BufReader::new(endless.stdout.take().expect("piped"));
        for _ in 0..3 {
            let mut line = String::new();
            lines.read_line(&mut line).expect("a part");
            assert_eq!(line, "tick\n");
        }
        drop(lines);
        assert_eq!(endless.wait().expect("it ends").code(), Some(0), "{protocol}");
        worker.await_metric("vilya_invocations_open", "", |open| open == 0.0);

        let whole = invoke(&worker, protocol, &["-v", "-d", "parts"]).wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&whole.stderr);
        assert_eq!((whole.status.code(), &whole.stdout[..]), (Some(0), &b"one,zwei,three"[..]), "{said}");
        assert!(said.contains("status 200, 14 bytes of text/csv\n"), "{said}");

        for (word, why) in [("parts raise", "Refused"), ("parts exit", "SandboxDied")] {
            let cut = invoke(&worker, protocol, &["-d", word]).wait_with_output().expect("it ends");
            let said = String::from_utf8_lossy(&cut.stderr);
            assert_eq!((cut.status.code(), &cut.stdout[..]), (Some(1), &b"begun"[..]), "{said}");
            assert!(said.contains("is not whole") && said.contains("`vilya logs parts`"), "{said}");
            // HTTP has no place for the reason.
            assert!(protocol == "http" || said.contains(why), "{said}");
        }

        // Larger than the worker would hold, into a file.
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let path = file.path().to_str().expect("a plain path");
        let mut large = invoke(&worker, protocol, &["-d", "parts large", "-o", path]);
        assert_eq!(large.wait().expect("it ends").code(), Some(0));
        let mut rest = String::new();
        large.stdout.take().expect("piped").read_to_string(&mut rest).expect("text");
        assert_eq!((file.path().metadata().expect("a file").len(), &*rest), (64 << 20, ""));
    }
}
