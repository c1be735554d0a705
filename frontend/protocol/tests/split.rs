//! Whatever the bytes and wherever they are split, the decoder reads the same.

use proptest::prelude::*;
use vilya_protocol::http::Limits;
use vilya_protocol::http::adversarial::read;

/// Small enough for random requests to reach every bound.
const SMALL: Limits = Limits { head_bytes: 160, headers: 4, target_bytes: 40, body_bytes: 50 };

/// Pieces from which requests, and near-requests, are put together.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let literal = prop::sample::select(vec![
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /fn/echo HTTP/1.1\r\nHost: h\r\n",
        "POST http://h/a?b HTTP/1.1\r\nHost: h\r\n",
        "GET / HTTP/1.0\r\n",
        "Content-Length: 5\r\n\r\nhello",
        "Content-Length: 12\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Expect: 100-continue\r\n",
        "X: a long value that fills the head up to its bound\r\n",
        "5\r\nhello\r\n",
        "5;a=b\r\nhello\r\n",
        "1F\r\n0123456789012345678901234567890\r\n",
        "0\r\n\r\n",
        "0\r\nX: y\r\n\r\n",
        "\r\n",
        "\r",
        "\n",
        " ",
        "\t",
        "0",
        "/a/long/target/that/reaches/the/bound/of/it",
        "GET ",
        " HTTP/1.1\r\n",
        "x",
    ]);
    prop_oneof![
        8 => literal.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}

fn wire() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(fragment(), 0..12).prop_map(|parts| parts.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_the_same_at_any_split(wire in wire(), cuts in prop::collection::vec(any::<usize>(), 0..12)) {
        for limits in [SMALL, Limits::DEFAULT] {
            let whole = read(&wire, limits, &[]);
            prop_assert_eq!(&read(&wire, limits, &cuts), &whole);
            let every: Vec<usize> = (0..wire.len()).collect();
            prop_assert_eq!(&read(&wire, limits, &every), &whole);
        }
    }

    /// What this decoder takes, the parser beneath it takes too, and reads the same: strictness only removes.
    #[test]
    fn agrees_with_httparse_on_what_it_takes(wire in wire()) {
        let reading = read(&wire, Limits::DEFAULT, &[]);
        if let Some(first) = reading.requests.first() {
            let mut table = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut table);
            let status = request.parse(&wire).expect("it was taken");
            prop_assert!(status.is_complete());
            prop_assert_eq!(request.method, Some(first.method_text.as_str()));
            let target = request.path.expect("the request is complete");
            let read = match &first.query {
                Some(query) => format!("{}?{query}", first.path),
                None => first.path.clone(),
            };
            prop_assert!(target.ends_with(&read) || (first.path == "/" && !target.starts_with('/')));
            prop_assert_eq!(request.headers.len(), first.headers.len());
            for (theirs, (name, value)) in request.headers.iter().zip(&first.headers) {
                prop_assert_eq!(theirs.name.as_bytes(), name.as_slice());
                prop_assert_eq!(theirs.value, value.as_slice());
            }
        }
    }
}
