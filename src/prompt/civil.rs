//! A date and time of day, and how templates ask for it.

use std::fmt::Write;

/// A date and time of day in whatever time zone the caller chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CivilTime {
    /// Year of the Gregorian calendar.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

const SECONDS_PER_DAY: i64 = 86_400;

/// Days in 400 Gregorian years, after which the calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;

impl CivilTime {
    /// The time in UTC, `seconds` after the start of 1970.
    pub fn from_unix(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
        let (year, month, day) = date_of(days);
        Self { year, month, day, hour: (rest / 3600) as u8, minute: (rest / 60 % 60) as u8, second: (rest % 60) as u8 }
    }

    /// The time written as `format` says, with the directives of C's `strftime` that templates
    /// use and English names. A directive not known here stays as it is.
    pub(super) fn strftime(&self, format: &str) -> String {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let Some(directive) = chars.next() else {
                out.push('%');
                break;
            };
            match directive {
                // `%-d` is the GNU way to say: no padding.
                '-' => {
                    let inner: String = chars.next().into_iter().collect();
                    let padded = self.strftime(&format!("%{inner}"));
                    let bare = padded.trim_start_matches(['0', ' ']);
                    out.push_str(if bare.is_empty() { "0" } else { bare });
                }
                _ => self.write_directive(directive, &mut out),
            }
        }
        out
    }

    fn write_directive(&self, directive: char, out: &mut String) {
        let month = MONTHS[usize::from(self.month.clamp(1, 12)) - 1];
        let weekday = WEEKDAYS[self.weekday()];
        let hour12 = match self.hour % 12 {
            0 => 12,
            hour => hour,
        };
        // Writing to a string does not fail.
        let _ = match directive {
            'Y' => write!(out, "{}", self.year),
            'y' => write!(out, "{:02}", self.year.rem_euclid(100)),
            'm' => write!(out, "{:02}", self.month),
            'd' => write!(out, "{:02}", self.day),
            'e' => write!(out, "{:2}", self.day),
            'j' => write!(out, "{:03}", self.day_of_year()),
            'H' => write!(out, "{:02}", self.hour),
            'I' => write!(out, "{hour12:02}"),
            'M' => write!(out, "{:02}", self.minute),
            'S' => write!(out, "{:02}", self.second),
            'p' => write!(out, "{}", if self.hour < 12 { "AM" } else { "PM" }),
            'B' => write!(out, "{month}"),
            'b' | 'h' => write!(out, "{}", &month[..3]),
            'A' => write!(out, "{weekday}"),
            'a' => write!(out, "{}", &weekday[..3]),
            'F' => write!(out, "{}", self.strftime("%Y-%m-%d")),
            'T' => write!(out, "{}", self.strftime("%H:%M:%S")),
            '%' => write!(out, "%"),
            other => write!(out, "%{other}"),
        };
    }

    /// 0 is Monday.
    fn weekday(&self) -> usize {
        // The first of January 1970 was a Thursday.
        (days_since_1970(self.year, self.month, self.day) + 3).rem_euclid(7) as usize
    }

    fn day_of_year(&self) -> i64 {
        days_since_1970(self.year, self.month, self.day) - days_since_1970(self.year, 1, 1) + 1
    }
}

/// Days from the start of March of year 0, counted in years that begin in March: the leap day is
/// then the last day of its year, and the months fall into a straight line of 153 days per five.
fn days_since_1970(year: i64, month: u8, day: u8) -> i64 {
    let (year, month) = match month {
        0..=2 => (year.saturating_sub(1), i64::from(month) + 9),
        _ => (year, i64::from(month) - 3),
    };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    let days = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    era.saturating_mul(DAYS_PER_ERA).saturating_add(days - 719_468)
}

/// The inverse of [`days_since_1970`].
fn date_of(days: i64) -> (i64, u8, u8) {
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    // Leap days taken out, a year is 365 days.
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era;
    match month {
        0..=9 => (year, month as u8 + 3, day as u8),
        _ => (year + 1, month as u8 - 9, day as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::CivilTime;

    #[test]
    fn writes_the_directives_templates_use() {
        // 26 July 2024 was a Friday, the 208th day of a leap year.
        let time = CivilTime::from_unix(1_721_999_045);
        for (format, expected) in [
            ("%d %b %Y", "26 Jul 2024"),
            ("%A, %B %d", "Friday, July 26"),
            ("%Y-%m-%d %H:%M:%S", "2024-07-26 13:04:05"),
            ("%F %T", "2024-07-26 13:04:05"),
            ("%y %j %a", "24 208 Fri"),
            ("%-d/%-m %I%p", "26/7 01PM"),
            ("100%% %Q %", "100% %Q %"),
        ] {
            assert_eq!(time.strftime(format), expected, "{format}");
        }
    }

    #[test]
    fn every_day_comes_back() {
        for day in -800_000..800_000 {
            let (year, month, date) = super::date_of(day);
            assert_eq!(super::days_since_1970(year, month, date), day);
            assert!((1..=12).contains(&month) && (1..=31).contains(&date));
        }
        CivilTime::from_unix(i64::MIN).strftime("%c %A %j");
        CivilTime::from_unix(i64::MAX).strftime("%A %j");
    }
}
