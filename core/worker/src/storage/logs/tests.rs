//! Lines, splits, rotation and loss.

use super::*;

const ID: [u8; 16] = [0xab; 16];
const ID_TEXT: &str = "abababababababababababababababab";

fn files(limit_bytes: u64) -> (tempfile::TempDir, LogFiles) {
    let directory = tempfile::tempdir().unwrap();
    let logs = LogFiles::open(&directory.path().join("logs"), limit_bytes).unwrap();
    (directory, logs)
}

fn entry(bytes: &[u8]) -> LogEntry<'_> {
    LogEntry { unix_ms: 1_795_420_800_123, request_id: Some(ID), stream: 1, bytes }
}

fn texts(tail: &str) -> Vec<String> {
    tail.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap().to_owned()).collect()
}

#[test]
fn lines_are_written_with_time_and_request() {
    let (_directory, mut logs) = files(0);
    logs.append("hello", &[entry(b"one\ntwo\n"), LogEntry { request_id: None, stream: 2, ..entry(b"boot\n") }])
        .unwrap();
    let expected = format!(
        "2026-11-23T08:00:00.123Z {ID_TEXT} one\n2026-11-23T08:00:00.123Z {ID_TEXT} two\n2026-11-23T08:00:00.123Z - boot\n"
    );
    assert_eq!(logs.tail("hello", 10).unwrap(), expected);
    assert_eq!(texts(&logs.tail("hello", 1).unwrap()), ["boot"]);
    assert_eq!(logs.tail("hello", 0).unwrap(), "");
    assert_eq!(logs.tail("other", 10).unwrap(), "");
}

#[test]
fn a_line_waits_for_its_end_on_its_own_stream() {
    let (_directory, mut logs) = files(0);
    logs.append("f", &[entry(b"a"), LogEntry { stream: 2, ..entry(b"x\n") }, entry(b"b"), entry(b"c\nd")]).unwrap();
    assert_eq!(texts(&logs.tail("f", 10).unwrap()), ["x", "abc"]);
    logs.end_stream("f", 1).unwrap();
    logs.end_stream("f", 1).unwrap();
    assert_eq!(texts(&logs.tail("f", 10).unwrap()), ["x", "abc", "d"]);
}

#[test]
fn a_line_left_open_keeps_its_own_request() {
    let (_directory, mut logs) = files(0);
    logs.append("f", &[entry(b"first"), LogEntry { request_id: Some([1; 16]), ..entry(b"second\n") }]).unwrap();
    let tail = logs.tail("f", 10).unwrap();
    assert_eq!(texts(&tail), ["first", "second"]);
    assert!(tail.lines().next().unwrap().contains(ID_TEXT));
}

#[test]
fn output_cannot_forge_lines_or_drive_a_terminal() {
    let (_directory, mut logs) = files(0);
    logs.append("f", &[entry(b"\x1b[31mred\r2026 fake\x00\x7f\ttab \xff\xc3\xa9 \xc2\x85\r\n")]).unwrap();
    assert_eq!(texts(&logs.tail("f", 10).unwrap()), ["\\x1b[31mred\\x0d2026 fake\\x00\\x7f\ttab \u{fffd}é \\x85"]);
}

#[test]
fn long_lines_are_split_between_characters() {
    let (_directory, mut logs) = files(0);
    let text = format!("a{}\n", "é".repeat(LINE_BYTES_MAX));
    logs.append("f", &[entry(text.as_bytes())]).unwrap();
    let tail = logs.tail("f", 10).unwrap();
    let parts = texts(&tail);
    assert_eq!(parts.len(), 3);
    assert!(!tail.contains('\u{fffd}'));
    assert_eq!(parts.concat(), text.trim_end());
    assert!(parts.iter().all(|part| part.len() <= LINE_BYTES_MAX));
}

#[test]
fn bytes_that_are_no_text_do_not_stall_the_split() {
    let (_directory, mut logs) = files(2 * MIB);
    for byte in [0xff, 0x80, 0xf0] {
        logs.append("f", &[entry(&vec![byte; 3 * LINE_BYTES_MAX])]).unwrap();
    }
    logs.end_stream("f", 1).unwrap();
    let count = logs.tail("f", 100).unwrap().lines().count();
    assert!((9..=10).contains(&count), "{count}");
}

#[test]
fn a_line_of_exactly_the_limit_is_one_line() {
    let (_directory, mut logs) = files(0);
    let mut text = vec![b'x'; LINE_BYTES_MAX];
    text.extend_from_slice(b"\nnext\n");
    logs.append("f", &[entry(&text)]).unwrap();
    assert_eq!(texts(&logs.tail("f", 10).unwrap()), ["x".repeat(LINE_BYTES_MAX), "next".to_owned()]);
}

fn size(directory: &Path) -> u64 {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn a_log_never_exceeds_its_limit_and_keeps_the_newest() {
    let (directory, mut logs) = files(LOG_BYTES_MIN);
    let mut largest = 0;
    for i in 0..20_000 {
        logs.append("f", &[entry(format!("line {i}\n").as_bytes())]).unwrap();
        if i % 100 == 0 {
            logs.flush().unwrap();
            largest = largest.max(size(&directory.path().join("logs")));
        }
    }
    let tail = logs.tail("f", 2000).unwrap();
    let expected: Vec<String> = (18_000..20_000).map(|i| format!("line {i}")).collect();
    assert_eq!(texts(&tail), expected, "the end of the log spans both files");
    assert!(largest <= LOG_BYTES_MIN && largest > LOG_BYTES_MIN / 2, "{largest}");
    for _ in 0..8 {
        logs.append("f", &[entry(&[0; LINE_BYTES_MAX])]).unwrap();
        logs.flush().unwrap();
        assert!(size(&directory.path().join("logs")) <= LOG_BYTES_MIN);
    }
}

#[test]
fn a_restart_goes_on_in_the_same_file() {
    let (directory, mut logs) = files(0);
    logs.append("f", &[entry(b"one\n")]).unwrap();
    logs.flush().unwrap();
    let mut logs = LogFiles::open(&directory.path().join("logs"), 0).unwrap();
    logs.append("f", &[entry(b"two\n")]).unwrap();
    assert_eq!(texts(&logs.tail("f", 10).unwrap()), ["one", "two"]);
}

#[test]
fn removing_forgets_everything() {
    let (directory, mut logs) = files(0);
    logs.append("f", &[entry(b"one\nunfinished")]).unwrap();
    logs.remove("f").unwrap();
    logs.end_stream("f", 1).unwrap();
    assert_eq!(logs.tail("f", 10).unwrap(), "");
    assert_eq!(size(&directory.path().join("logs")), 0);
    logs.remove("f").unwrap();
}

#[test]
fn many_functions_and_streams_stay_bounded() {
    let (_directory, mut logs) = files(0);
    for i in 0..(PARTIAL_LINES_MAX as u64 + 10) {
        let name = format!("f{}", i % 200);
        logs.append(&name, &[LogEntry { stream: i, ..entry(b"partial") }]).unwrap();
    }
    assert_eq!(logs.partial.len(), PARTIAL_LINES_MAX);
    assert!(logs.open.len() <= OPEN_FILES_MAX);
    for i in 0..200 {
        logs.append(&format!("f{i}"), &[entry(b"end\n")]).unwrap();
    }
    assert!(logs.open.len() <= OPEN_FILES_MAX);
    assert!(logs.tail("f0", 10).unwrap().ends_with("end\n"));
}

#[test]
fn what_could_not_be_written_is_told_later() {
    let (directory, mut logs) = files(0);
    let obstacle = directory.path().join("logs/f.log");
    std::fs::create_dir(&obstacle).unwrap();
    assert!(logs.append("f", &[entry(b"lost\nlost too\n")]).is_err());
    assert!(logs.append("g", &[entry(b"fine\n")]).is_ok());
    std::fs::remove_dir(&obstacle).unwrap();
    logs.append("f", &[entry(b"kept\n")]).unwrap();
    let lost = "2026-11-23T08:00:00.123Z  lost\n".len() + ID_TEXT.len();
    let expected = [format!("[vilya] {} bytes of output dropped", 2 * lost + " too".len()), "kept".to_owned()];
    assert_eq!(texts(&logs.tail("f", 10).unwrap()), expected);
}

#[test]
fn unfinished_lines_are_written_at_the_end() {
    let (_directory, mut logs) = files(0);
    logs.append("f", &[entry(b"unfinished")]).unwrap();
    logs.finish().unwrap();
    assert_eq!(texts(&logs.tail("f", 10).unwrap()), ["unfinished"]);
}

#[test]
fn dropped_output_is_noted_and_odd_names_are_refused() {
    let (_directory, mut logs) = files(0);
    logs.note_dropped("f", 0, 42).unwrap();
    assert_eq!(logs.tail("f", 1).unwrap(), "1970-01-01T00:00:00.000Z - [vilya] 42 bytes of output dropped\n");
    assert!(logs.append("../f", &[entry(b"x\n")]).is_err());
}
