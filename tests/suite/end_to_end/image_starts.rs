//! Starts of functions in an image: in sandboxes made ahead for it, and as copies of the function's own zygote.

use super::images::{base_layer, deploy, top_layer, write_function, write_image};
use super::worker::Worker;
use super::zygotes::{STARTS, answers_of_copies, end_sandbox};

const CODE: &str = "
import os, sys
loaded = os.urandom(8).hex()
def handler(event, context):
    if event == 'exit': os._exit(0)
    return [loaded, os.urandom(8).hex(), open('/etc/os-release').read(), sys.executable, os.environ.get('FROM_IMAGE'), os.path.lexists('/bin/sh')]
";

#[test]
fn a_python_function_in_an_image_is_copied_from_a_zygote_of_its_own_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_image(vec![base_layer(), top_layer()], &folder.path().join("python.tar"));
    write_function(folder.path(), "py-boxed", CODE);
    let worker = Worker::start_with(&["cores.shards=1"]);
    deploy(&worker, folder.path());
    let first = worker.client().invoke("py-boxed", b"1").expect(200).json();
    assert_eq!(worker.metric(STARTS, "form=\"made\""), 1.0, "the first start finds none made ahead");
    assert_eq!(worker.metric(STARTS, "form=\"runtime\""), 0.0, "nor a copy of the host's interpreter");
    end_sandbox(&mut worker.client(), "py-boxed");
    let answers = answers_of_copies(&worker, "py-boxed", b"1", 3);
    let answers: Vec<serde_json::Value> =
        answers.iter().map(|answer| serde_json::from_slice(answer).expect("JSON")).collect();
    assert!(answers.iter().all(|answer| answer[0] == answers[0][0] && answer[0] != first[0]), "{answers:?}");
    assert!(
        answers[0][1] != answers[1][1] && answers[1][1] != answers[2][1],
        "randomness is a copy's own: {answers:?}"
    );
    for answer in &answers {
        assert_eq!(answer[2], "ID=debian\nLAYER=2\n");
        assert_eq!((&answer[3], &answer[4]), (&"/usr/local/bin/python3".into(), &"yes".into()));
        assert_eq!(answer[5], false, "nothing of the host shows");
    }
    // Another function of the same image is served by sandboxes made ahead at once, and has no part in the first one's zygote.
    let copies = worker.metric(STARTS, "form=\"copy\"");
    write_function(folder.path(), "py-second", CODE);
    deploy(&worker, folder.path());
    let second = worker.client().invoke("py-second", b"1").expect(200).json();
    assert_ne!(second[0], answers[0][0]);
    assert_eq!(worker.metric(STARTS, "form=\"copy\""), copies);
    assert_eq!(worker.metric(STARTS, "form=\"made\""), 1.0, "no other was made for its start");
}

#[test]
fn an_image_that_is_deployed_again_after_it_was_removed_is_shown_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_image(vec![base_layer()], &folder.path().join("python.tar"));
    write_function(folder.path(), "py-boxed", CODE);
    let worker = Worker::start_with(&["cores.shards=1"]);
    for _ in 0..3 {
        deploy(&worker, folder.path());
        for _ in 0..2 {
            let answer = worker.client().invoke("py-boxed", b"1").expect(200).json();
            assert_eq!(answer[2], "ID=debian\nLAYER=1\n");
            end_sandbox(&mut worker.client(), "py-boxed");
        }
        worker.client().request("DELETE", "/v1/functions/py-boxed", b"").expect(204);
        let since = std::time::Instant::now();
        while super::images::images(&worker) > 0 {
            assert!(since.elapsed() < super::worker::PATIENCE, "the image stays");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

#[test]
fn none_is_made_ahead_for_images_where_none_shall_be() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_image(vec![base_layer()], &folder.path().join("python.tar"));
    write_function(folder.path(), "py-boxed", CODE);
    let worker = Worker::start_with(&["cores.shards=1", "sandbox.prepared_images=0"]);
    deploy(&worker, folder.path());
    for _ in 0..3 {
        worker.client().invoke("py-boxed", b"1").expect(200);
        end_sandbox(&mut worker.client(), "py-boxed");
    }
    let of = |form: &str| worker.metric(STARTS, &format!("form=\"{form}\""));
    assert_eq!((of("made"), of("copy"), of("prepared")), (3.0, 0.0, 0.0));
}
