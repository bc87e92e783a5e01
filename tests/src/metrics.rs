//! Histograms as they arrived over OTLP, and what the spans of the same exchanges make one expect of them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, metric};

use crate::span::{Kind, Spans};

/// A point of a histogram.
#[derive(Clone, PartialEq, Debug)]
pub struct Point {
    /// `service.name` of the resource.
    pub service: String,
    /// Name of the metric.
    pub metric: String,
    /// What tells the series from others: the resource and the attributes.
    pub series: String,
    /// UNIX nanoseconds.
    pub time: u64,
    /// Values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Values in all buckets.
    pub in_buckets: u64,
    /// Whether buckets are powers of a base.
    pub is_exponential: bool,
    /// Whether it counts since the point before.
    pub is_delta: bool,
}

/// The histograms of a request; other kinds are left out.
#[must_use]
pub fn points(request: ExportMetricsServiceRequest) -> Vec<Point> {
    let mut points = Vec::new();
    for group in request.resource_metrics {
        let resource = group.resource.unwrap_or_default().attributes;
        let service = text(&resource, "service.name");
        for metric in group.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
            let name = metric.name;
            let point = |attributes: &[KeyValue], time, count, sum: Option<f64>, in_buckets| Point {
                service: service.clone(),
                metric: name.clone(),
                series: format!("{resource:?} {attributes:?}"),
                time,
                count,
                sum: sum.unwrap_or(f64::NAN),
                in_buckets,
                is_exponential: false,
                is_delta: false,
            };
            let is_delta = |temporality: i32| temporality == AggregationTemporality::Delta as i32;
            match metric.data {
                Some(metric::Data::Histogram(histogram)) => {
                    points.extend(histogram.data_points.iter().map(|p| Point {
                        is_delta: is_delta(histogram.aggregation_temporality),
                        ..point(
                            &p.attributes,
                            p.time_unix_nano,
                            p.count,
                            p.sum,
                            p.bucket_counts.iter().sum(),
                        )
                    }));
                }
                Some(metric::Data::ExponentialHistogram(histogram)) => {
                    points.extend(histogram.data_points.iter().map(|p| {
                        let buckets = [&p.positive, &p.negative].into_iter().flatten();
                        let counted: u64 = buckets.flat_map(|buckets| &buckets.bucket_counts).sum();
                        Point {
                            is_delta: is_delta(histogram.aggregation_temporality),
                            is_exponential: true,
                            ..point(
                                &p.attributes,
                                p.time_unix_nano,
                                p.count,
                                p.sum,
                                counted + p.zero_count,
                            )
                        }
                    }));
                }
                _ => {}
            }
        }
    }
    points
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|pair| pair.key == key);
    match value.and_then(|pair| pair.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

/// Number and sum of the values, by service and metric.
pub type Totals = BTreeMap<(String, String), (u64, f64)>;

/// What the points come to in the end: of each series the last one where they are cumulative, else all.
///
/// # Panics
/// If buckets do not hold as many values as there are.
#[must_use]
pub fn totals(points: &[Point]) -> Totals {
    let mut ends: BTreeMap<(&str, &str), Vec<&Point>> = BTreeMap::new();
    for point in points {
        assert_eq!(point.count, point.in_buckets, "{point:?}");
        let series = ends.entry((&point.metric, &point.series)).or_default();
        match series.first_mut() {
            Some(before) if !point.is_delta => {
                if before.time <= point.time {
                    *before = point;
                }
            }
            _ => series.push(point),
        }
    }
    let mut totals = Totals::new();
    for point in ends.into_values().flatten() {
        let total = totals.entry((point.service.clone(), point.metric.clone()));
        let (count, sum) = total.or_default();
        *count += point.count;
        *sum += point.sum;
    }
    totals
}

/// What the durations of these spans come to, in seconds, for the metrics that are made of durations.
#[must_use]
pub fn expected(spans: &Spans) -> Totals {
    let mut totals = Totals::new();
    for span in spans {
        let metric = match span.kind {
            Kind::Server if span.get("http.request.method").is_some() => "http.server.request.duration",
            Kind::Client if span.get("http.request.method").is_some() => "http.client.request.duration",
            Kind::Client if span.get("db.system.name").is_some() => "db.client.operation.duration",
            _ => continue,
        };
        let total = totals.entry((span.service.clone(), metric.to_owned()));
        let (count, sum) = total.or_default();
        *count += 1;
        *sum += span.duration() as f64 / 1e9;
    }
    totals
}

/// What differs, beyond what sums of floating-point numbers do.
#[must_use]
pub fn differences(expected: &Totals, told: &Totals) -> Vec<String> {
    let mut problems = Vec::new();
    for (key, &(count, sum)) in expected {
        let &(told_count, told_sum) = told.get(key).unwrap_or(&(0, 0.0));
        if told_count != count || (told_sum - sum).abs() > 1e-6 * sum.max(1e-3) {
            problems.push(format!(
                "{key:?}: {count} of {sum} s, told are {told_count} of {told_sum} s"
            ));
        }
    }
    problems
}
