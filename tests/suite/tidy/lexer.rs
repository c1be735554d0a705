//! Rust text without its comments and literals, so that a rule about code does not trip over words about code.

/// `text` with every comment, string and character literal blanked. Lines keep their numbers.
pub(super) fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let skipped = skipped_length(rest, previous);
        if skipped == 0 {
            code.push(first);
            previous = first;
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..skipped].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            previous = ' ';
            rest = &rest[skipped..];
        }
    }
    code
}

/// How many bytes at the start of `rest` are a comment or a literal; `previous` is the character before.
fn skipped_length(rest: &str, previous: char) -> usize {
    let in_word = previous.is_alphanumeric() || previous == '_';
    match rest.as_bytes() {
        [b'/', b'/', ..] => rest.find('\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => string(rest),
        [b'\'', ..] => character(rest),
        [b'r' | b'b' | b'c', ..] if !in_word => prefixed_literal(rest),
        _ => 0,
    }
}

fn block_comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// A string literal that starts at the quote.
fn string(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character literal, but not a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(rest.len(), |end| end + 4),
        Some(_) => match chars.next() {
            Some((end, '\'')) => end + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// `r"…"`, `r#"…"#`, `b"…"`, `b'…'`, `br#"…"#`, `c"…"`: zero if it is only a word with that letter.
fn prefixed_literal(rest: &str) -> usize {
    let letters = rest.bytes().take_while(|byte| b"rbc".contains(byte)).count();
    if letters > 2 {
        return 0;
    }
    let raw = rest[..letters].contains('r');
    let after = &rest[letters..];
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    match after.as_bytes().get(hashes) {
        Some(b'"') if raw => {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = letters + hashes + 1;
            rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len())
        }
        Some(b'"') if hashes == 0 => letters + string(after),
        Some(b'\'') if hashes == 0 && &rest[..letters] == "b" => letters + character(after),
        _ => 0,
    }
}

/// The byte offsets at which `word` stands in `code` as a word of its own.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

#[test]
fn comments_and_literals_are_blanked_and_code_is_kept() {
    for (text, words) in [
        ("a // unsafe\nb", "a b"),
        ("a /* x /* y */ z */ b", "a b"),
        (r#"f("un\"safe") g"#, "f( ) g"),
        ("r\"a\\\" b", "b"),
        ("r#\"a\"b\"# c", "c"),
        ("br##\"x\"# \"## d", "d"),
        ("b\"x\" c\"y\" b'\"' e", "e"),
        (r"'\'' 'x' 'a: z '\n'", "'a: z"),
        (r"'\u{41}' f", "f"),
        ("let r = radix;", "let r = radix;"),
        ("rb!(x)", "rb!(x)"),
        ("\"a\nb\" c", "c"),
    ] {
        let code = code_only(text);
        assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), words, "{text}");
        assert_eq!((code.chars().count(), code.lines().count()), (text.chars().count(), text.lines().count()));
    }
}

#[test]
fn words_stand_alone() {
    let found: Vec<usize> = words("unsafe unsafe_code (unsafe) notunsafe", "unsafe").collect();
    assert_eq!(found, [0, 20]);
}
