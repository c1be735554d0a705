//! What a program is given: descriptors, arguments, environment, a place to be.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use vilya_isolate::{Bind, Exit, SpecError, StartError};

use crate::support::{PYTHON, each, null, python, spec};

#[test]
fn it_answers_on_its_descriptors() {
    each(|room| {
        let ((reads, mut write), (mut read, writes)) = (io::pipe().expect("a pipe"), io::pipe().expect("a pipe"));
        let ring: [OwnedFd; 3] = [reads.into(), writes.into(), null()];
        let program = "import os; os.write(4, os.read(3, 16)[::-1]); os.fstat(5)";
        let running = room.start_with(&python(program), ring).expect("it starts");
        write.write_all(b"question").expect("it reads");
        drop(write);
        let mut answer = String::new();
        read.read_to_string(&mut answer).expect("it answers");
        assert_eq!(answer, "noitseuq");
        assert_eq!(running.finish().ended.exit, Exit::Code(0));
    });
}

#[test]
fn its_output_goes_where_it_is_sent() {
    each(|room| {
        let ran = room.python("import sys; print('out'); print('err', file=sys.stderr)");
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    });
}

#[test]
fn arguments_environment_and_directory_are_exact() {
    each(|room| {
        let program = r#"
import json, os, sys
environment = open("/proc/self/environ").read().split("\0")
print(json.dumps([sys.argv[1:], environment[:-1], os.getcwd(), os.uname().nodename, open("/proc/self/cmdline").read().split("\0")[0]]))
"#;
        let mut spec = spec(&[PYTHON, "-I", "-B", "-c", program, "", "a b", "\"'\\$x", "ü"]);
        spec.environment.push(("EMPTY".into(), String::new()));
        spec.environment.push(("LINES".into(), "one\ntwo = ü".into()));
        spec.working_directory = "/usr/bin".into();
        spec.hostname = "conformant".into();
        let ran = room.run(&spec);
        let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
        assert_eq!(said[0], serde_json::json!(["", "a b", "\"'\\$x", "ü"]));
        let environment: Vec<String> = spec.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(said[1], serde_json::json!(environment));
        assert_eq!((&said[2], &said[3]), (&"/usr/bin".into(), &"conformant".into()));
        assert_eq!(said[4], PYTHON);
    });
}

#[test]
fn it_has_no_other_descriptor() {
    each(|room| {
        // Open here and not to be inherited, whatever its flags say.
        let (kept, _other) = io::pipe().expect("a pipe");
        let program = r#"
import os
for fd in sorted(os.listdir("/proc/self/fd"), key=int):
    try: print(fd, os.readlink("/proc/self/fd/" + fd))
    except FileNotFoundError: pass
"#;
        let ran = room.python(program);
        drop(kept);
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert_eq!(lines.len(), 6, "{ran:?}");
        assert!(lines[0] == "0 /dev/null" && lines[3..].iter().all(|line| line.ends_with("/dev/null")), "{ran:?}");
        assert!(lines[1].starts_with("1 pipe:") && lines[2].starts_with("2 pipe:"), "{ran:?}");
    });
}

#[test]
fn binds_are_shown_as_they_are_asked_for() {
    each(|room| {
        let host = tempfile::tempdir().expect("a directory");
        let (fixed, open) = (host.path().join("fixed"), host.path().join("open"));
        for directory in [&fixed, &open] {
            std::fs::create_dir(directory).expect("made");
            std::fs::write(directory.join("file"), "shown").expect("written");
            let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(directory, everyone).expect("its mode");
        }
        let program = r#"
import os
for place in ("/function", "/deep/er/open"):
    print(open(place + "/file").read(), end=" ")
    try: open(place + "/new", "w").close(); print("written")
    except OSError as error: print(error.errno)
print(open("/one").read())
"#;
        let mut spec = python(program);
        let bind = |source, target: &str, read_only| Bind { source, target: target.into(), read_only };
        spec.binds = vec![
            bind(fixed.clone(), "/function", true),
            bind(open.clone(), "/deep/er/open", false),
            bind(fixed.join("file"), "/one", true),
        ];
        let ran = room.run(&spec);
        assert_eq!(ran.stdout, format!("shown {}\nshown written\nshown\n", libc::EROFS), "{ran:?}");
        assert!(open.join("new").exists() && !fixed.join("new").exists());
    });
}

#[test]
fn a_bad_spec_is_refused_and_nothing_starts() {
    each(|room| {
        let mut refused = |change: &dyn Fn(&mut vilya_isolate::Spec)| {
            let mut spec = spec(&["/usr/bin/true"]);
            change(&mut spec);
            room.start(&spec).map(|_| ()).expect_err("it must be refused")
        };
        let of_spec = |error: &StartError| matches!(error, StartError::Spec(_));
        assert!(of_spec(&refused(&|spec| spec.name = "../x".into())));
        assert!(of_spec(&refused(&|spec| spec.command[0] = "true".into())));
        assert!(of_spec(&refused(&|spec| spec.environment[0].0 = "A=B".into())));
        assert!(of_spec(&refused(&|spec| spec.working_directory = "/tmp/..".into())));
        let bind = |source: &str, target: &str| Bind { source: source.into(), target: target.into(), read_only: true };
        assert!(matches!(
            refused(&|spec| spec.binds = vec![bind("/usr", "/etc/x")]),
            StartError::Spec(SpecError::Overlap { .. })
        ));
        // What only a look at the host can tell.
        let missing = refused(&|spec| spec.binds = vec![bind("/no/such/place", "/x")]).to_string();
        assert!(missing.contains("/no/such/place"), "{missing}");
        let host = tempfile::tempdir().expect("a directory");
        let link = host.path().join("link");
        std::os::unix::fs::symlink("/usr", &link).expect("a link");
        let followed = refused(&|spec| spec.binds = vec![bind(&link.to_string_lossy(), "/x")]).to_string();
        assert!(followed.contains("symbolic link"), "{followed}");
        let program = refused(&|spec| spec.command[0] = "/usr/bin/no-such-program".into()).to_string();
        assert!(program.contains("no-such-program"), "{program}");
    });
}
