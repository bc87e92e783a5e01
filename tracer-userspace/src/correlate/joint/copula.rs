//! What the gaps of one request have to do with each other: a slow request is slow throughout, and calls that follow one moment are all
//! late where that moment is. Each gap has its own distribution ([`super::density`]); how their ranks go together is a Gaussian copula.

/// Plans that are thought to have been seen whose gaps had nothing to do with each other.
const DOUBT: f32 = 10.0;

/// How the ranks of the gaps of one pattern of calls go together.
#[derive(Clone)]
pub(super) struct Copula {
    gaps: usize,
    /// The inverse of the correlations, less what it were if there were none; row by row.
    precision: Vec<f32>,
    /// Half the logarithm of the determinant of the correlations.
    half_log: f32,
}

impl Copula {
    /// From the ranks of plans, `gaps` of each. `None` if there is nothing to be learned.
    pub fn learn<'r>(gaps: usize, plans: impl Iterator<Item = &'r [f32]>) -> Option<Self> {
        let mut sums = vec![0.0_f32; gaps * gaps];
        let mut count = DOUBT;
        for ranks in plans {
            count += 1.0;
            for (row, a) in sums.chunks_mut(gaps).zip(ranks) {
                for (sum, b) in row.iter_mut().zip(ranks) {
                    *sum += a * b;
                }
            }
        }
        for (at, sum) in sums.iter_mut().enumerate() {
            *sum = if at % (gaps + 1) == 0 { 1.0 } else { *sum / count };
        }
        let (mut precision, half_log) = inverse(sums, gaps)?;
        for one in precision.iter_mut().step_by(gaps + 1) {
            *one -= 1.0;
        }
        Some(Self {
            gaps,
            precision,
            half_log,
        })
    }

    /// The logarithm of how much likelier the ranks are together than each by itself.
    pub fn at(&self, ranks: &[f32]) -> f32 {
        if ranks.len() != self.gaps {
            return 0.0;
        }
        let rows = self.precision.chunks(self.gaps).zip(ranks);
        let sum: f32 = rows
            .map(|(row, a)| a * row.iter().zip(ranks).map(|(p, b)| p * b).sum::<f32>())
            .sum();
        -0.5 * sum - self.half_log
    }
}

/// The inverse of a symmetric matrix and half the logarithm of its determinant (Gauss and Jordan); `None` if it is not positive definite.
fn inverse(mut matrix: Vec<f32>, size: usize) -> Option<(Vec<f32>, f32)> {
    let mut half_log = 0.0;
    for pivot in 0..size {
        let row: Vec<f32> = matrix.get(pivot * size..(pivot + 1) * size)?.to_vec();
        let head = *row.get(pivot)?;
        if head <= 1e-3 {
            return None;
        }
        half_log += 0.5 * head.ln();
        for (at, line) in matrix.chunks_mut(size).enumerate() {
            let factor = *line.get(pivot)? / head;
            for (to, (place, of_row)) in line.iter_mut().zip(&row).enumerate() {
                *place = match (at == pivot, to == pivot) {
                    (true, true) => 1.0 / head,
                    (true, false) => of_row / head,
                    (false, true) => -factor,
                    (false, false) => *place - factor * of_row,
                };
            }
        }
    }
    Some((matrix, half_log))
}

#[cfg(test)]
mod tests {
    use super::Copula;

    #[test]
    fn gaps_that_go_together_are_likelier_together() {
        let plans = [[1.0, 1.0], [-1.0, -1.0]];
        let forty = plans.iter().cycle().take(40).map(|plan| &plan[..]);
        let copula = Copula::learn(2, forty).expect("something is learned");
        assert!(copula.at(&[1.5, 1.5]) > 0.5);
        assert!(copula.at(&[1.5, -1.5]) < -2.0);
        assert!(
            copula.at(&[1.5]) == 0.0,
            "of another number of gaps nothing is known"
        );
    }

    #[test]
    fn gaps_that_have_nothing_to_do_with_each_other_stay_as_likely() {
        let plans = [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]];
        let copula = Copula::learn(2, plans.iter().map(|plan| &plan[..])).expect("something is learned");
        assert!(copula.at(&[2.0, -2.0]).abs() < 1e-6);
    }
}
