//! Sizes and durations as people write them: `64MiB`, `250ms`.
//!
//! Invariant: what [`format_bytes`] and [`format_duration`] print, [`parse_bytes`] and [`parse_duration`] read back to
//! the same number. Whole numbers only, so that nothing is rounded behind the operator's back.

/// Bytes in a KiB.
pub const KIB: u64 = 1 << 10;
/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes in a GiB.
pub const GIB: u64 = 1 << 30;
/// Nanoseconds in a millisecond.
pub const MILLISECOND_NS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;
/// Nanoseconds in a minute.
pub const MINUTE_NS: u64 = 60 * SECOND_NS;

/// Largest first: printing takes the first that divides the number.
const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];
const DURATIONS: [(&str, u64); 6] =
    [("h", 60 * MINUTE_NS), ("m", MINUTE_NS), ("s", SECOND_NS), ("ms", MILLISECOND_NS), ("us", 1_000), ("ns", 1)];

/// Why a text is not a size or a duration. The message says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// Reads a size in bytes: a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`; a bare number is bytes.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text);
    if unit.is_empty() {
        return whole(number, 1, text, "a size such as \"64MiB\"");
    }
    if let Some((_, bytes)) = SIZES.iter().find(|(name, _)| *name == unit) {
        return whole(number, *bytes, text, "a size such as \"64MiB\"");
    }
    let first = unit.chars().next().map(|letter| letter.to_ascii_uppercase());
    let hint = match first {
        Some('K') => "KiB",
        Some('G') => "GiB",
        Some('T') => "TiB",
        _ => "MiB",
    };
    Err(UnitError(format!(
        "\"{text}\" is not a size: write a whole number and a unit of B, KiB, MiB, GiB or TiB, for example \"64{hint}\""
    )))
}

/// Reads a duration in nanoseconds: a whole number and `ns`, `us`, `ms`, `s`, `m` or `h`. A unit is required.
pub fn parse_duration(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text);
    match DURATIONS.iter().find(|(name, _)| *name == unit) {
        Some((_, ns)) => whole(number, *ns, text, "a duration such as \"250ms\""),
        None => Err(UnitError(format!(
            "\"{text}\" is not a duration: write a whole number and a unit of ns, us, ms, s, m or h, for example \"250ms\""
        ))),
    }
}

/// Prints a size with the largest unit that keeps it whole.
pub fn format_bytes(bytes: u64) -> String {
    format_whole(bytes, &SIZES, "B")
}

/// Prints a duration with the largest unit that keeps it whole.
pub fn format_duration(ns: u64) -> String {
    format_whole(ns, &DURATIONS, "s")
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn whole(number: &str, unit: u64, text: &str, example: &str) -> Result<u64, UnitError> {
    if number.is_empty() {
        return Err(UnitError(format!("\"{text}\" has no number: write {example}")));
    }
    // Only digits are left, so that a failure means too large.
    let value = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    value.ok_or_else(|| UnitError(format!("\"{text}\" is too large: write a smaller number, as in {example}")))
}

fn format_whole(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    if value == 0 {
        return format!("0{zero}");
    }
    let fits = units.iter().find(|(_, size)| value.is_multiple_of(*size));
    let (name, size) = fits.expect("the last unit is 1, which divides every number");
    format!("{}{name}", value / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("1 GiB"), Ok(1 << 30));
        assert_eq!(parse_bytes("512KiB"), Ok(512 << 10));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("0B"), Ok(0));
    }

    #[test]
    fn refuses_what_is_not_a_size_and_says_what_to_write() {
        assert!(parse_bytes("64mb").unwrap_err().to_string().contains("64MiB"));
        assert!(parse_bytes("4G").unwrap_err().to_string().contains("64GiB"));
        assert!(parse_bytes("1.5GiB").is_err());
        assert!(parse_bytes("-1").is_err());
        assert!(parse_bytes("").is_err());
        assert!(parse_bytes("MiB").unwrap_err().to_string().contains("no number"));
        assert!(parse_bytes("18446744073709551615KiB").unwrap_err().to_string().contains("too large"));
        assert!(parse_bytes("99999999999999999999").unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn reads_durations() {
        assert_eq!(parse_duration("3s"), Ok(3 * SECOND_NS));
        assert_eq!(parse_duration("250ms"), Ok(250 * MILLISECOND_NS));
        assert_eq!(parse_duration("10m"), Ok(600 * SECOND_NS));
        assert_eq!(parse_duration("50us"), Ok(50_000));
        assert!(parse_duration("3").unwrap_err().to_string().contains("unit"));
        assert!(parse_duration("3 sec").is_err());
        assert!(parse_duration("99999999999h").unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn what_is_printed_reads_back() {
        for value in [0, 1, 999, 1000, 1024, 1500, MIB, 3 * GIB, GIB + 1, 60_000_000_000, u64::MAX] {
            assert_eq!(parse_bytes(&format_bytes(value)), Ok(value));
            assert_eq!(parse_duration(&format_duration(value)), Ok(value));
        }
        assert_eq!(format_bytes(64 * MIB), "64MiB");
        assert_eq!(format_duration(90 * SECOND_NS), "90s");
    }
}
