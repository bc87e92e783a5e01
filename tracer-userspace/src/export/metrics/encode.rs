//! Families -> `ExportMetricsServiceRequest`s, grouped by resource, none of them too large.

use std::sync::Arc;

use hashbrown::HashMap;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value,
};
use opentelemetry_proto::tonic::metrics::v1 as otlp;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_semantic_conventions::SCHEMA_URL;

use super::config::{Buckets, Temporality};
use super::delta::{Key, is_delta};
use crate::export::Clock;
use crate::model::{
    Distribution, Exponential, Family, Instrument, InstrumentKind, Label, Nanos, Point, Reading, Service,
};

/// Points of one request. A histogram with its attributes is some hundred bytes, and receivers take 4 MiB.
const MAX_POINTS: usize = 2_000;

/// How points are told.
pub struct Form<'a> {
    pub clock: &'a Clock,
    pub temporality: Temporality,
    pub buckets: Buckets,
    /// When everything was read.
    pub now: Nanos,
    /// Whose metrics without a service are.
    pub myself: &'a Arc<Service>,
}

impl Form<'_> {
    /// The requests, and the series that each tells.
    pub fn requests(&self, families: &[Family]) -> Vec<(ExportMetricsServiceRequest, Vec<Key>)> {
        let mut requests = Vec::new();
        let mut rest: Vec<(&Family, &[Point])> = families.iter().map(|f| (f, f.points.as_slice())).collect();
        rest.reverse();
        while !rest.is_empty() {
            let mut room = MAX_POINTS;
            let mut batch: Vec<(&Family, &[Point])> = Vec::new();
            while let Some((family, points)) = rest.pop() {
                let (now, later) = points.split_at(points.len().min(room));
                room -= now.len();
                batch.push((family, now));
                if !later.is_empty() {
                    rest.push((family, later));
                }
                if room == 0 {
                    break;
                }
            }
            let series = batch.iter().flat_map(|(family, points)| {
                points.iter().map(|point| (family.instrument.name, point.series))
            });
            requests.push((self.request(&batch), series.collect()));
        }
        requests
    }

    fn request(&self, batch: &[(&Family, &[Point])]) -> ExportMetricsServiceRequest {
        let mut order: Vec<(&Arc<Service>, Vec<otlp::Metric>)> = Vec::new();
        let mut places: HashMap<usize, usize> = HashMap::new();
        for (family, points) in batch {
            let mut by_service: Vec<(usize, Vec<&Point>)> = Vec::new();
            let mut at: HashMap<usize, usize> = HashMap::new();
            for point in *points {
                let service = point.service.as_ref().unwrap_or(self.myself);
                let place = *places.entry(Arc::as_ptr(service) as usize).or_insert_with(|| {
                    order.push((service, Vec::new()));
                    order.len() - 1
                });
                let index = *at.entry(place).or_insert_with(|| {
                    by_service.push((place, Vec::new()));
                    by_service.len() - 1
                });
                if let Some((_, points)) = by_service.get_mut(index) {
                    points.push(point);
                }
            }
            for (place, points) in by_service {
                if let Some((_, metrics)) = order.get_mut(place) {
                    metrics.push(self.metric(family, &points));
                }
            }
        }
        let resource_metrics = order
            .into_iter()
            .map(|(service, metrics)| otlp::ResourceMetrics {
                resource: Some(resource(service)),
                scope_metrics: vec![otlp::ScopeMetrics {
                    scope: Some(InstrumentationScope {
                        name: "tracer".to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    metrics,
                    schema_url: SCHEMA_URL.to_owned(),
                }],
                schema_url: SCHEMA_URL.to_owned(),
            })
            .collect();
        ExportMetricsServiceRequest { resource_metrics }
    }

    fn metric(&self, family: &Family, points: &[&Point]) -> otlp::Metric {
        let instrument = family.instrument;
        let temporality = match self.temporality {
            Temporality::Delta | Temporality::LowMemory if is_delta(family) => {
                otlp::AggregationTemporality::Delta
            }
            _ => otlp::AggregationTemporality::Cumulative,
        } as i32;
        let numbers = || {
            points
                .iter()
                .map(|point| self.number(instrument, point))
                .collect()
        };
        let data = match instrument.kind {
            InstrumentKind::Gauge => otlp::metric::Data::Gauge(otlp::Gauge {
                data_points: numbers(),
            }),
            InstrumentKind::Counter | InstrumentKind::UpDownCounter => otlp::metric::Data::Sum(otlp::Sum {
                data_points: numbers(),
                aggregation_temporality: temporality,
                is_monotonic: instrument.kind == InstrumentKind::Counter,
            }),
            InstrumentKind::Histogram if self.buckets == Buckets::Exponential => {
                otlp::metric::Data::ExponentialHistogram(otlp::ExponentialHistogram {
                    data_points: self
                        .distributions(points, |point, told| self.exponential(instrument, point, told)),
                    aggregation_temporality: temporality,
                })
            }
            InstrumentKind::Histogram => otlp::metric::Data::Histogram(otlp::Histogram {
                data_points: self
                    .distributions(points, |point, told| Some(self.explicit(instrument, point, told))),
                aggregation_temporality: temporality,
            }),
        };
        otlp::Metric {
            name: instrument.name.to_owned(),
            description: instrument.description.to_owned(),
            unit: instrument.unit.to_owned(),
            data: Some(data),
            ..otlp::Metric::default()
        }
    }

    fn distributions<T>(
        &self,
        points: &[&Point],
        mut tell: impl FnMut(&Point, &Distribution) -> Option<T>,
    ) -> Vec<T> {
        let told = points.iter().filter_map(|point| match &point.value {
            Reading::Distribution(told) => tell(point, told),
            Reading::Number(_) | Reading::Real(_) => None,
        });
        told.collect()
    }

    fn number(&self, instrument: &Instrument, point: &Point) -> otlp::NumberDataPoint {
        let value = match point.value {
            Reading::Number(number) if instrument.scale == 1 => {
                otlp::number_data_point::Value::AsInt(i64::try_from(number).unwrap_or(i64::MAX))
            }
            Reading::Number(number) => otlp::number_data_point::Value::AsDouble(instrument.in_unit(number)),
            Reading::Real(number) => otlp::number_data_point::Value::AsDouble(number),
            Reading::Distribution(_) => otlp::number_data_point::Value::AsInt(0),
        };
        otlp::NumberDataPoint {
            attributes: attributes(point),
            start_time_unix_nano: self.clock.unix(point.start),
            time_unix_nano: self.clock.unix(self.now),
            value: Some(value),
            ..otlp::NumberDataPoint::default()
        }
    }

    fn explicit(
        &self,
        instrument: &Instrument,
        point: &Point,
        told: &Distribution,
    ) -> otlp::HistogramDataPoint {
        otlp::HistogramDataPoint {
            attributes: attributes(point),
            start_time_unix_nano: self.clock.unix(point.start),
            time_unix_nano: self.clock.unix(self.now),
            count: told.count(),
            sum: Some(instrument.in_unit(told.sum)),
            bucket_counts: told.counts.clone(),
            explicit_bounds: instrument
                .bounds
                .iter()
                .map(|&bound| instrument.in_unit(bound))
                .collect(),
            exemplars: self.exemplars(instrument, told),
            ..otlp::HistogramDataPoint::default()
        }
    }

    fn exponential(
        &self,
        instrument: &Instrument,
        point: &Point,
        told: &Distribution,
    ) -> Option<otlp::ExponentialHistogramDataPoint> {
        let Exponential {
            scale,
            zero,
            offset,
            counts,
        } = told.exponential.as_ref()?;
        Some(otlp::ExponentialHistogramDataPoint {
            attributes: attributes(point),
            start_time_unix_nano: self.clock.unix(point.start),
            time_unix_nano: self.clock.unix(self.now),
            count: told.count(),
            sum: Some(instrument.in_unit(told.sum)),
            scale: *scale,
            zero_count: *zero,
            positive: Some(otlp::exponential_histogram_data_point::Buckets {
                offset: *offset,
                bucket_counts: counts.clone(),
            }),
            exemplars: self.exemplars(instrument, told),
            ..otlp::ExponentialHistogramDataPoint::default()
        })
    }

    fn exemplars(&self, instrument: &Instrument, told: &Distribution) -> Vec<otlp::Exemplar> {
        told.exemplars
            .iter()
            .map(|exemplar| otlp::Exemplar {
                time_unix_nano: self.clock.unix(exemplar.ts),
                span_id: exemplar.span_id.0.to_vec(),
                trace_id: exemplar.trace_id.0.to_vec(),
                value: Some(otlp::exemplar::Value::AsDouble(
                    instrument.in_unit(exemplar.value),
                )),
                ..otlp::Exemplar::default()
            })
            .collect()
    }
}

fn attributes(point: &Point) -> Vec<KeyValue> {
    let value = |label: &Label| match label {
        Label::Text(text) => any_value::Value::StringValue(text.to_string()),
        Label::Static(text) => any_value::Value::StringValue((*text).to_owned()),
        Label::Int(number) => any_value::Value::IntValue(*number),
        Label::Bool(truth) => any_value::Value::BoolValue(*truth),
    };
    point
        .labels
        .iter()
        .map(|(key, label)| key_value(key, value(label)))
        .collect()
}

fn resource(service: &Service) -> Resource {
    let resource = &service.resource;
    let text = resource
        .text
        .iter()
        .map(|(key, value)| key_value(key, any_value::Value::StringValue(value.to_string())));
    let ints = resource
        .ints
        .iter()
        .map(|(key, value)| key_value(key, any_value::Value::IntValue(*value)));
    let lists = resource.lists.iter().map(|(key, values)| {
        let values = values.iter().map(|value| AnyValue {
            value: Some(any_value::Value::StringValue(value.to_string())),
        });
        key_value(
            key,
            any_value::Value::ArrayValue(ArrayValue {
                values: values.collect(),
            }),
        )
    });
    Resource {
        attributes: text.chain(ints).chain(lists).collect(),
        ..Resource::default()
    }
}

fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
