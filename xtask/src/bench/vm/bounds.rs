//! Guards the guest's figures: instruction counts repeat, so a bound with a small margin holds on any machine.

use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

/// Compares figures by kind and name with a file of bounds: `{"kind": {"figure": [least or null, most or null]}}`.
pub fn check(path: &Path, figure: impl Fn(&str, &str) -> Option<f64>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("no bounds in {}", path.display()))?;
    let outside = outside(&serde_json::from_str(&text)?, figure)?;
    ensure!(
        outside.is_empty(),
        "outside the bounds of {}:\n{}",
        path.display(),
        outside.join("\n")
    );
    println!("every bound holds");
    Ok(())
}

fn outside(bounds: &Value, figure: impl Fn(&str, &str) -> Option<f64>) -> anyhow::Result<Vec<String>> {
    let mut outside = Vec::new();
    for (kind, names) in bounds.as_object().context("not an object of kinds")? {
        for (name, bound) in names.as_object().context("not an object of figures")? {
            let value = figure(kind, name).with_context(|| format!("{kind} has no figure {name}"))?;
            let limit = |index: usize| bound.get(index).and_then(Value::as_f64);
            ensure!(
                limit(0).or(limit(1)).is_some(),
                "{kind} {name}: neither a least nor a most"
            );
            if limit(0).is_some_and(|least| value < least) || limit(1).is_some_and(|most| value > most) {
                outside.push(format!("{kind} {name}: {value:.3}, bound {bound}"));
            }
        }
    }
    Ok(outside)
}

#[cfg(test)]
mod tests {
    use super::outside;

    #[test]
    fn bounds_hold_or_are_named() {
        let bounds = serde_json::json!({"json": {"rate_ratio": [0.9, null], "daemon": [null, 5000]}});
        for (ratio, daemon, expected) in [(0.95, 4000.0, 0), (0.89, 4000.0, 1), (0.5, 6000.0, 2)] {
            let figure = |_: &str, name: &str| Some(if name == "daemon" { daemon } else { ratio });
            assert_eq!(outside(&bounds, figure).expect("figures").len(), expected);
        }
        assert!(outside(&bounds, |_, _| None).is_err());
        assert!(
            outside(&serde_json::json!({"json": {"x": [null, null]}}), |_, _| Some(
                1.0
            ))
            .is_err()
        );
    }
}
