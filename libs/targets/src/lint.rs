//! Rules, and a model held against them: what would fall back to the CPU or be refused, operator by operator.

use std::collections::BTreeMap;

use edgeyard_job::report::{Finding, Severity};
use serde::{Deserialize, Deserializer, de};

use crate::facts::{self, Fact};
use crate::target::Target;
use crate::view::{Operator, View};

/// Operators that a target has.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operators {
    /// What becomes of an operator that the list does not have.
    pub otherwise: Otherwise,
    /// What to do about such an operator.
    pub remedy: String,
    /// Operators, with the newest version that is taken; `null` for any version.
    #[serde(default)]
    pub list: BTreeMap<String, Option<i64>>,
}

/// What becomes of what a list does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Otherwise {
    /// It is taken: the list only says something about some.
    Taken,
    /// It runs on the CPU.
    Fallback,
    /// The model is not taken.
    Refused,
}

/// Something a target asks of operators or of the whole model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Its name, in reports.
    pub name: String,
    /// Operators that it is about; empty: all, or the model.
    #[serde(default)]
    pub operators: Vec<String>,
    /// Operators that it is not about.
    #[serde(default)]
    pub except: Vec<String>,
    /// It is asked only where all of these hold.
    #[serde(default)]
    pub when: Vec<Condition>,
    /// What has to hold.
    pub require: Condition,
    /// What becomes of an operator or model that does not keep to it.
    pub severity: Severity,
    /// Why it is asked.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// All values of a quantity are within bounds. An operator without such a quantity keeps to it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// The quantity; `attribute:NAME` for a setting of the operator.
    #[serde(deserialize_with = "known")]
    pub quantity: String,
    /// The least value.
    #[serde(default)]
    pub min: Option<f64>,
    /// The largest value.
    #[serde(default)]
    pub max: Option<f64>,
    /// The only values.
    #[serde(default)]
    pub one_of: Option<Vec<Word>>,
}

/// A value in a rule.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Word {
    /// A number.
    Number(f64),
    /// A word.
    Text(String),
}

fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if facts::is_known(&name) { Ok(name) } else { Err(de::Error::custom(format!("{name} is no quantity of a rule"))) }
}

impl Condition {
    /// The first value out of bounds.
    fn broken_by<'a>(&self, values: &'a [Fact]) -> Option<&'a Fact> {
        values.iter().find(|value| {
            let number = if let Fact::Number(number) = value { Some(*number) } else { None };
            let low = self.min.zip(number).is_some_and(|(min, number)| number < min);
            let high = self.max.zip(number).is_some_and(|(max, number)| number > max);
            let listed = self.one_of.as_ref().is_none_or(|words| {
                words.iter().any(|word| match (word, value) {
                    (Word::Number(word), Fact::Number(value)) => word == value,
                    (Word::Text(word), Fact::Text(value)) => word == value,
                    _ => false,
                })
            });
            low || high || !listed
        })
    }

    /// As a `when`: the quantity is there, and within bounds.
    fn holds(&self, values: &[Fact]) -> bool {
        !values.is_empty() && self.broken_by(values).is_none()
    }
}

/// Holds a model against a target's rules; in the order of the model, the gravest of an operator first.
pub fn lint(target: &Target, view: &View) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in target.rules.iter().filter(|rule| facts::of_model(&rule.require.quantity)) {
        if rule.when.iter().any(|condition| !condition.holds(&facts::model(view, &condition.quantity))) {
            continue;
        }
        if let Some(value) = rule.require.broken_by(&facts::model(view, &rule.require.quantity)) {
            findings.push(finding(rule, "the model".to_owned(), value));
        }
    }
    for operator in &view.operators {
        let mut of_this: Vec<Finding> = in_list(target, operator).into_iter().collect();
        // What the target does not have at all needs no further complaint.
        if of_this.is_empty() {
            of_this.extend(target.rules.iter().filter_map(|rule| check(rule, view, operator)));
        }
        of_this.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        findings.extend(of_this);
    }
    findings
}

fn in_list(target: &Target, operator: &Operator) -> Option<Finding> {
    let Operators { otherwise, remedy, list } = &target.operators;
    let subject = format!("{} ({})", operator.label, operator.kind);
    let severity = match otherwise {
        Otherwise::Taken | Otherwise::Fallback => Severity::Fallback,
        Otherwise::Refused => Severity::Refused,
    };
    match list.get(&operator.kind) {
        Some(Some(newest)) if operator.version > *newest => Some(Finding {
            severity,
            rule: "operator-version".to_owned(),
            subject,
            message: format!(
                "{} has version {}, {} takes versions up to {newest}: {remedy}",
                operator.kind, operator.version, target.name
            ),
        }),
        Some(_) => None,
        None if *otherwise == Otherwise::Taken => None,
        None => Some(Finding {
            severity,
            rule: "operator".to_owned(),
            subject,
            message: format!("{} is not among the operators of {}: {remedy}", operator.kind, target.name),
        }),
    }
}

fn check(rule: &Rule, view: &View, operator: &Operator) -> Option<Finding> {
    let Rule { operators, except, when, require, .. } = rule;
    let about = (operators.is_empty() || operators.contains(&operator.kind)) && !except.contains(&operator.kind);
    if !about || facts::of_model(&require.quantity) {
        return None;
    }
    let values = |condition: &Condition| facts::operator(view, operator, &condition.quantity);
    if !when.iter().all(|condition| condition.holds(&values(condition))) {
        return None;
    }
    let values = values(require);
    let value = require.broken_by(&values)?;
    Some(finding(rule, format!("{} ({})", operator.label, operator.kind), value))
}

fn finding(rule: &Rule, subject: String, value: &Fact) -> Finding {
    let Rule { name, severity, why, remedy, require, .. } = rule;
    let quantity = require.quantity.trim_start_matches("attribute:");
    Finding {
        severity: *severity,
        rule: name.clone(),
        subject,
        message: format!("{why} ({quantity} is {value}): {remedy}"),
    }
}
