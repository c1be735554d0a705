//! The account of a failed invocation: the JSON that every runtime of the platform sends.

use std::any::Any;
use std::fmt::{Display, Write as _};

/// What went wrong, in the words of the function.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    error_type: String,
    message: String,
}

impl Failure {
    /// An account in the words of the caller.
    #[must_use]
    pub fn new(error_type: String, message: String) -> Failure {
        Failure { error_type, message }
    }

    /// The account of an error that a handler returned.
    pub(crate) fn of_error<E: Display>(error: &E) -> Failure {
        Failure { error_type: type_label(std::any::type_name::<E>()), message: error.to_string() }
    }

    /// The account of a handler's panic.
    pub(crate) fn of_panic(panic: &(dyn Any + Send)) -> Failure {
        let message = if let Some(message) = panic.downcast_ref::<&str>() {
            (*message).to_owned()
        } else if let Some(message) = panic.downcast_ref::<String>() {
            message.clone()
        } else {
            "the handler panicked with a value that is no text".to_owned()
        };
        Failure { error_type: "Panic".to_owned(), message }
    }

    /// The account in JSON, its message shortened until it fits `limit` bytes.
    pub(crate) fn to_json(&self, limit: usize) -> Vec<u8> {
        let mut message = self.message.as_str();
        loop {
            let json = self.json_with(message);
            if json.len() <= limit || message.is_empty() {
                return json.into_bytes();
            }
            message = &message[..message.floor_char_boundary(message.len() / 2)];
        }
    }

    fn json_with(&self, message: &str) -> String {
        let mut json = String::with_capacity(message.len() + 80);
        json.push_str("{\"errorType\":");
        push_string(&mut json, &self.error_type);
        json.push_str(",\"errorMessage\":");
        push_string(&mut json, message);
        json.push_str(",\"stackTrace\":[]}");
        json
    }
}

/// The last part of a type's path, without its parameters. Types that say nothing are an `Error`.
fn type_label(path: &str) -> String {
    let plain = path.split('<').next().unwrap_or(path);
    match plain.rsplit("::").next().unwrap_or(plain) {
        "Box" | "Arc" | "Rc" | "String" | "&str" | "str" => "Error".to_owned(),
        label => label.to_owned(),
    }
}

/// Appends `text` as a JSON string (RFC 8259, section 7).
fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\0'..='\x1f' => write!(json, "\\u{:04x}", u32::from(character)).expect("writing to a string"),
            _ => json.push(character),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_escaped_and_types_are_short() {
        let error = std::num::IntErrorKind::Empty;
        assert_eq!(type_label(std::any::type_name_of_val(&error)), "IntErrorKind");
        assert_eq!(type_label(std::any::type_name::<Box<dyn std::error::Error + Send>>()), "Error");
        let failure = Failure::of_error(&"a \"b\" \\ \n\u{1} é".to_owned());
        let json = String::from_utf8(failure.to_json(1000)).unwrap();
        let expected = r#"{"errorType":"Error","errorMessage":"a \"b\" \\ \n\u0001 é","stackTrace":[]}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn a_long_message_is_shortened_between_characters_until_it_fits() {
        let failure = Failure { error_type: "Panic".to_owned(), message: "é".repeat(5000) };
        let json = failure.to_json(1216);
        assert!(json.len() <= 1216 && json.len() > 600);
        assert!(String::from_utf8(json).unwrap().ends_with("é\",\"stackTrace\":[]}"));
    }

    #[test]
    fn a_panic_tells_its_message() {
        let panic = std::panic::catch_unwind(|| panic!("lost {}", 7)).unwrap_err();
        let expected = Failure { error_type: "Panic".to_owned(), message: "lost 7".to_owned() };
        assert_eq!(Failure::of_panic(&*panic), expected);
        let panic = std::panic::catch_unwind(|| std::panic::panic_any(7)).unwrap_err();
        assert_eq!(Failure::of_panic(&*panic).error_type, "Panic");
    }
}
