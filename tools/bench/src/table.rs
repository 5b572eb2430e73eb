//! Markdown tables that are also read well as text.

pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Table {
        Table { rows: vec![head.map(str::to_owned).into()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default().max(3)
        };
        for (index, row) in self.rows.iter().enumerate() {
            for column in 0..columns {
                let cell = row.get(column).map_or("", String::as_str);
                write!(f, "| {cell:<width$} ", width = width(column))?;
            }
            writeln!(f, "|")?;
            if index == 0 {
                for column in 0..columns {
                    write!(f, "|{}", "-".repeat(width(column) + 2))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// What figures in milliseconds are to stay under.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) median: f64,
    pub(crate) worst: f64,
}

impl Goal {
    pub(crate) fn is_met(self, median: f64, worst: f64) -> bool {
        median < self.median && worst < self.worst
    }

    /// Whether it is met, in a word.
    pub(crate) fn show(self, median: f64, worst: f64) -> String {
        if self.is_met(median, worst) { "met".to_owned() } else { "**missed**".to_owned() }
    }
}

/// The median and the greatest of some figures; none where there are none.
pub(crate) fn median_and_worst(figures: &[f64]) -> Option<(f64, f64)> {
    Some((median(figures)?, figures.iter().copied().max_by(f64::total_cmp)?))
}

/// The middle one, or the mean of the middle two; none where there are none.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median_and_worst(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 4.0)));
    }

    #[test]
    fn a_goal_is_met_by_the_median_and_the_worst() {
        let goal = Goal { median: 300.0, worst: 1_000.0 };
        assert!(goal.is_met(299.0, 999.0));
        assert!(!goal.is_met(300.0, 999.0) && !goal.is_met(10.0, 1_000.0));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["a", "what"]);
        table.row(["µs-long".to_owned(), "b".to_owned()]);
        let expected = "| a       | what |\n|---------|------|\n| µs-long | b    |\n";
        assert_eq!(table.to_string(), expected);
    }
}
