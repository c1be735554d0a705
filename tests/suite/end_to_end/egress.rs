//! Functions that reach other machines: asked for, allowed, refused, and after the worker was killed.

use std::process::Command;

use super::images;
use super::internet::{Internet, METADATA, NAMESERVER, PRIVATE, SERVICE};
use super::worker::{Worker, archive, worker_command};

const ASKING: &str = r#"
import os, socket

def ask(host, port):
    try:
        with socket.create_connection((host, port), 20) as stream:
            return stream.recv(100).decode().strip()
    except OSError as error:
        return type(error).__name__

def handler(event, context):
    if event == "die": os._exit(1)
    return {host: ask(host, port) for host, port in event}
"#;

fn refused(worker: &Worker, settings: &str) -> String {
    let manifest = format!("name = \"asks\"\nruntime = \"python\"\nnetwork = \"egress\"\n{settings}\n");
    let files = [("function.toml", manifest.as_bytes(), 0o644), ("main.py", ASKING.as_bytes(), 0o644)];
    worker.deploy("asks", &archive(&files)).expect(400).text().to_string()
}

#[test]
fn nobody_is_let_out_unasked() {
    let worker = Worker::start();
    let said = refused(&worker, "");
    assert!(said.contains("sandbox.egress = true"), "{said}");
    let worker = Worker::start_with(&["sandbox.egress=true"]);
    let said = refused(&worker, "mechanism = \"oci\"");
    assert!(said.contains("mechanism = \\\"native\\\"") || said.contains("mechanism = \\\"oci\\\""), "{said}");
    if !nix::unistd::geteuid().is_root() {
        let said = refused(&worker, "");
        assert!(said.contains("run the worker as root"), "{said}");
    }
}

#[test]
fn a_function_that_is_let_out_reaches_other_machines_until_it_is_not() {
    let test = "end_to_end::egress::a_function_that_is_let_out_reaches_other_machines_until_it_is_not";
    let Some(mut internet) = Internet::around(test) else { return };
    let nameservers = format!("sandbox.nameservers={NAMESERVER}");
    let settings = ["sandbox.egress=true", &nameservers];
    let worker = Worker::start_with(&settings);
    worker.deploy_python("asks", ASKING, "network = \"egress\"");
    worker.deploy_python("alone", ASKING, "");
    let question = format!(
        "[[\"{SERVICE}\", 7000], [\"any.name.example\", 7000], [\"{METADATA}\", 80], [\"{PRIVATE}\", 80], [\"198.51.100.2\", {}]]",
        worker.address.port()
    );
    let mut client = worker.client();
    // More sandboxes than a function has before its others are copied, which would have no way out.
    for _ in 0..4 {
        let answer = client.invoke("asks", question.as_bytes()).expect(200);
        assert_eq!(answer.header("x-vilya-start"), Some("cold"));
        let said = answer.json();
        let greeting = format!("198.51.100.2 at {SERVICE}");
        assert_eq!(said[SERVICE], greeting.as_str(), "{said}");
        assert_eq!(said["any.name.example"], greeting.as_str(), "{said}");
        for denied in [METADATA, PRIVATE, "198.51.100.2"] {
            assert_eq!(said[denied], "OSError", "{denied}: no route to host");
        }
        client.invoke("asks", b"\"die\"").expect(502);
    }
    assert!(!internet.seen().contains(METADATA));
    let alone = client.invoke("alone", question.as_bytes()).expect(200).json();
    assert_eq!(alone[SERVICE], "OSError", "network unreachable");
    client.invoke("asks", b"[]").expect(200);
    // Killed with a sandbox alive, and started again by an operator who lets nobody out any more.
    let worker = Worker::start_on(worker.crash(), &[]);
    let said = worker.client().invoke("asks", b"[]").expect(502).text().to_string();
    assert!(said.contains("sandbox.egress = true"), "{said}");
    let interfaces = std::fs::read_to_string("/proc/self/net/dev").expect("this namespace has interfaces");
    assert!(!interfaces.contains("vy"), "{interfaces}");
    let worker = Worker::start_on(worker.crash(), &settings);
    let again = worker.client().invoke("asks", question.as_bytes()).expect(200).json();
    assert_eq!(again[SERVICE], format!("198.51.100.2 at {SERVICE}").as_str());
}

#[test]
fn a_function_in_an_image_is_let_out_and_told_of_nameservers() {
    let test = "end_to_end::egress::a_function_in_an_image_is_let_out_and_told_of_nameservers";
    let Some(_internet) = Internet::around(test) else { return };
    let worker = Worker::start_with(&["sandbox.egress=true", &format!("sandbox.nameservers={NAMESERVER}")]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    images::write_image(vec![images::base_layer(), images::top_layer()], &folder.path().join("python.tar"));
    let code = format!(
        "{ASKING}\nhandler_of = handler\n\
         def handler(event, context): return os.listdir('/') if event == 'root' else handler_of(event, context)\n\
         def files(event, context): return [open(f'/etc/{{name}}').read() for name in event]\n"
    );
    images::write_function(folder.path(), "asks", &code);
    let manifest = folder.path().join("function.toml");
    let text = std::fs::read_to_string(&manifest).expect("it was written");
    std::fs::write(&manifest, format!("network = \"egress\"\n{text}")).expect("a temporary folder");
    images::deploy(&worker, folder.path());
    let mut client = worker.client();
    let question = format!("[[\"any.name.example\", 7000], [\"{METADATA}\", 80]]");
    let said = client.invoke("asks", question.as_bytes()).expect(200).json();
    assert_eq!(said["any.name.example"], format!("198.51.100.2 at {SERVICE}").as_str(), "{said}");
    assert_eq!(said[METADATA], "OSError", "no route to host");
    let root = client.invoke("asks", b"\"root\"").expect(200).text().to_string();
    assert!(root.contains("function") && !root.contains("replacement"), "nothing of how it came there: {root}");
    // The same image, and nothing of the other's.
    std::fs::write(&manifest, text.replace("name = \"asks\"", "name = \"alone\"\nhandler = \"main.files\""))
        .expect("written");
    images::deploy(&worker, folder.path());
    let said = client.invoke("alone", b"[\"resolv.conf\", \"nsswitch.conf\"]").expect(200).json();
    assert_eq!((said[0].as_str(), said[1].as_str()), (Some(""), Some("passwd: files\ngroup: files\nhosts: files\n")));
}

#[test]
fn the_doctor_says_whether_functions_can_be_let_out() {
    let test = "end_to_end::egress::the_doctor_says_whether_functions_can_be_let_out";
    let Some(_internet) = Internet::around(test) else { return };
    let state = tempfile::tempdir().expect("a directory");
    let doctor = || {
        let output = Command::new(worker_command())
            .args(["doctor", "--json", "--set", "server.address=127.0.0.1:0", "--set", "sandbox.egress=true"])
            .args(["--set", &format!("server.state_directory={}", state.path().display())])
            .output()
            .expect("it runs");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
        let findings = report["findings"].as_array().expect("a list").clone();
        findings.into_iter().find(|finding| finding["name"] == "other machines").expect("it is looked at")
    };
    assert_eq!(doctor()["status"], "ok");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("this namespace is ours");
    let finding = doctor();
    assert_eq!(finding["status"], "limited");
    assert_eq!(finding["mend"], "sysctl -w net.ipv4.ip_forward=1");
}
