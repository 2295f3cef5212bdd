//! Figures and tables.

/// Middle, 99th percentile, mean and greatest of some times in microseconds.
pub struct Spread {
    pub count: usize,
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(mut all: Vec<f64>) -> Spread {
        all.sort_by(f64::total_cmp);
        let at = |part: f64| all.get(((all.len() as f64 * part) as usize).min(all.len().saturating_sub(1))).copied();
        Spread {
            count: all.len(),
            mean: all.iter().sum::<f64>() / all.len().max(1) as f64,
            p50: at(0.5).unwrap_or(0.0),
            p99: at(0.99).unwrap_or(0.0),
            max: all.last().copied().unwrap_or(0.0),
        }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "count": self.count, "mean_us": round(self.mean), "p50_us": round(self.p50),
            "p99_us": round(self.p99), "max_us": round(self.max),
        })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Spread { count, mean, p50, p99, max } = self;
        write!(f, "mean {mean:.1} us, p50 {p50:.1} us, p99 {p99:.1} us, max {max:.1} us ({count})")
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A table in Markdown; the first column to the left, the others to the right.
pub fn print(head: &[&str], rows: &[Vec<String>]) {
    println!("| {} |", head.join(" | "));
    let rule: Vec<&str> = (0..head.len()).map(|index| if index == 0 { "---" } else { "---:" }).collect();
    println!("|{}|", rule.join("|"));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
}
