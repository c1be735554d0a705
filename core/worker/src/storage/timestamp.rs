//! Unix time as text, in UTC.
//!
//! It does not know leap seconds, as Unix time does not.

/// `2026-11-23T08:00:00.123Z` (RFC 3339) for milliseconds since 1970. Times after the year 9999 read as its end.
pub fn timestamp(unix_ms: u64) -> String {
    /// 9999-12-31T23:59:59.999Z, the last that four digits of year can say.
    const LAST_MS: u64 = 253_402_300_799_999;
    let unix_ms = unix_ms.min(LAST_MS);
    let (seconds, millis) = (unix_ms / 1000, unix_ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Days since 1970-01-01 to year, month and day. Years are counted from March, so that the leap day ends one.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468; // from 0000-03-01
    const DAYS_IN_ERA: u64 = 146_097; // 400 years
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) = (days / DAYS_IN_ERA, days % DAYS_IN_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_read_right() {
        // Each from `date -u -d @SECONDS`.
        let known = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800_001, "2024-02-29T00:00:00.001Z"),
            (1_795_420_800_123, "2026-11-23T08:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ];
        for (unix_ms, text) in known {
            assert_eq!(timestamp(unix_ms), text);
        }
    }

    #[test]
    fn days_follow_each_other() {
        let mut previous = civil(0);
        for day in 1..200_000 {
            let next = civil(day);
            let follows = match next {
                (year, 1, 1) => previous == (year - 1, 12, 31),
                (year, month, 1) => previous.0 == year && previous.1 == month - 1 && previous.2 >= 28,
                (year, month, day) => previous == (year, month, day - 1),
            };
            assert!(follows, "{previous:?} {next:?}");
            previous = next;
        }
    }
}
