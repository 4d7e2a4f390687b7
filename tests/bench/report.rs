//! The result of a section: a table, and whether the targets are met.

use std::fmt;
use std::iter::once;

use serde_json::{Map, Value, json};

/// One section's figures.
pub struct Report {
    /// What was measured, where, and in which unit.
    pub title: String,
    pub columns: &'static [&'static str],
    pub rows: Vec<Row>,
    pub targets: Vec<Target>,
}

/// A line of the table, with a figure for each column; NaN where there is none.
pub struct Row {
    pub name: String,
    pub figures: Vec<f64>,
}

/// A figure that we want to keep.
#[derive(Clone)]
pub struct Target {
    what: String,
    value: f64,
    bound: f64,
    is_minimum: bool,
}

impl Row {
    pub fn new(name: impl Into<String>, figures: Vec<f64>) -> Row {
        Row { name: name.into(), figures }
    }
}

impl Target {
    pub fn at_most(bound: f64, what: impl Into<String>, value: f64) -> Target {
        Target { what: what.into(), value, bound, is_minimum: false }
    }

    pub fn at_least(bound: f64, what: impl Into<String>, value: f64) -> Target {
        Target { what: what.into(), value, bound, is_minimum: true }
    }

    fn is_met(&self) -> bool {
        if self.is_minimum { self.value >= self.bound } else { self.value <= self.bound }
    }
}

impl Report {
    pub fn to_json(&self) -> Value {
        let row = |row: &Row| {
            let figures = self.columns.iter().zip(&row.figures);
            let figures = figures.map(|(column, figure)| (column.to_string(), json!(figure)));
            once(("name".to_string(), json!(row.name))).chain(figures).collect::<Map<_, _>>()
        };
        let target = |target: &Target| {
            let kind = if target.is_minimum { "at_least" } else { "at_most" };
            json!({
                "what": target.what, "value": target.value, kind: target.bound, "met": target.is_met()
            })
        };
        json!({
            "title": self.title,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "targets": self.targets.iter().map(target).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        writeln!(f, "{}\n", self.title)?;
        write!(f, "{:names$}", "")?;
        for column in self.columns {
            write!(f, "  {column:>9}")?;
        }
        for row in &self.rows {
            write!(f, "\n{:<names$}", row.name)?;
            for (column, figure) in self.columns.iter().zip(&row.figures) {
                write!(f, "  {:>1$}", short(*figure), column.chars().count().max(9))?;
            }
        }
        for target in &self.targets {
            write!(f, "\n{target}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let verdict = if self.is_met() { "met   " } else { "MISSED" };
        let bound = if self.is_minimum { "at least" } else { "at most" };
        let (value, target) = (short(self.value), short(self.bound));
        write!(f, "{verdict}  {}: {value} ({bound} {target})", self.what)
    }
}

/// Three digits or more, and no more behind the point than they need.
fn short(figure: f64) -> String {
    match figure.abs() {
        _ if figure.is_nan() => "–".into(),
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}
