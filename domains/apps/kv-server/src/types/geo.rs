//! Places on the earth as Redis has them: a point is a score of 52 bits, in which the bits of longitude and latitude alternate; near points have near
//! scores. Distances are on a sphere.

use alloc::vec::Vec;
use libm::{asin, cos, fabs, sin, sqrt};

/// Bits of each coordinate.
const BITS: u32 = 26;
/// Latitudes that scores reach to, in degrees: where the Mercator projection is square.
pub const LATITUDE_LIMIT: f64 = 85.051_128_78;
/// Longitudes, in degrees.
pub const LONGITUDE_LIMIT: f64 = 180.0;
/// In metres.
const EARTH_RADIUS: f64 = 6_372_797.560_856;
const GEOHASH_LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";

/// A point, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// East of Greenwich.
    pub longitude: f64,
    /// North of the equator.
    pub latitude: f64,
}

/// Spreads 32 bits so that there is room for another between any two.
fn spread(bits: u32) -> u64 {
    let mut wide = u64::from(bits);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        wide = (wide | wide << shift) & mask;
    }
    wide
}

/// Every other of the bits.
fn gather(wide: u64) -> u32 {
    let mut bits = wide & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    bits as u32
}

impl Point {
    /// Whether it has a score.
    pub fn is_valid(self) -> bool {
        fabs(self.longitude) <= LONGITUDE_LIMIT && fabs(self.latitude) <= LATITUDE_LIMIT
    }

    /// Its 52 bits where latitudes reach to `limit` degrees.
    fn bits(self, limit: f64) -> u64 {
        let scale = f64::from(1_u32 << BITS);
        let east = (self.longitude + LONGITUDE_LIMIT) / (2.0 * LONGITUDE_LIMIT) * scale;
        let north = (self.latitude + limit) / (2.0 * limit) * scale;
        spread(north as u32) | spread(east as u32) << 1
    }

    /// Its score.
    pub fn score(self) -> f64 {
        self.bits(LATITUDE_LIMIT) as f64
    }

    /// The middle of the cell of a score.
    pub fn of_score(score: f64) -> Point {
        let bits = score as u64;
        let scale = f64::from(1_u32 << BITS);
        let middle = |offset: u32, limit: f64| {
            let low = -limit + f64::from(offset) / scale * 2.0 * limit;
            let high = -limit + (f64::from(offset) + 1.0) / scale * 2.0 * limit;
            ((low + high) / 2.0).clamp(-limit, limit)
        };
        Point {
            longitude: middle(gather(bits >> 1), LONGITUDE_LIMIT),
            latitude: middle(gather(bits), LATITUDE_LIMIT),
        }
    }

    /// Its standard geohash, of 11 letters.
    pub fn geohash(self) -> [u8; 11] {
        let bits = self.bits(90.0);
        let mut text = [b'0'; 11];
        // The last one would need more bits than there are.
        for (place, letter) in text.iter_mut().take(10).enumerate() {
            let five = bits >> (2 * BITS as usize - (place + 1) * 5) & 0x1f;
            *letter = GEOHASH_LETTERS.get(five as usize).copied().unwrap_or(b'0');
        }
        text
    }

    /// Metres to another.
    pub fn distance(self, other: Point) -> f64 {
        let (north, other_north) = (self.latitude.to_radians(), other.latitude.to_radians());
        let east = sin((other.longitude - self.longitude).to_radians() / 2.0);
        if east == 0.0 {
            return EARTH_RADIUS * fabs(other_north - north);
        }
        let up = sin((other_north - north) / 2.0);
        let square = up * up + cos(north) * cos(other_north) * east * east;
        2.0 * EARTH_RADIUS * asin(sqrt(square))
    }
}

/// Where one looks for points, in metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// A circle.
    Circle {
        /// Its radius.
        radius: f64,
    },
    /// A rectangle along the parallels.
    Box {
        /// From west to east.
        width: f64,
        /// From south to north.
        height: f64,
    },
}

/// A shape and its middle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    /// The middle.
    pub middle: Point,
    /// The shape.
    pub shape: Shape,
}

/// Degrees from west to east and from south to north.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    west: f64,
    east: f64,
    south: f64,
    north: f64,
}

impl Bounds {
    fn width(&self) -> f64 {
        self.east - self.west
    }

    fn height(&self) -> f64 {
        self.north - self.south
    }

    fn meets(&self, other: &Bounds) -> bool {
        // The earth is round: what is beyond one edge is at the other.
        let meets = |turn: f64| self.west + turn <= other.east && self.east + turn >= other.west;
        self.south <= other.north
            && self.north >= other.south
            && (meets(0.0) || meets(2.0 * LONGITUDE_LIMIT) || meets(-2.0 * LONGITUDE_LIMIT))
    }
}

impl Area {
    /// How far a point is from the middle, in metres, if it is inside.
    pub fn distance(&self, point: Point) -> Option<f64> {
        let distance = self.middle.distance(point);
        let inside = match self.shape {
            Shape::Circle { radius } => distance <= radius,
            Shape::Box { width, height } => {
                let below = Point {
                    longitude: point.longitude,
                    ..self.middle
                };
                let beside = Point {
                    longitude: self.middle.longitude,
                    ..point
                };
                below.distance(point) <= height / 2.0 && beside.distance(point) <= width / 2.0
            }
        };
        inside.then_some(distance)
    }

    /// Degrees that hold it, with a little more for rounding.
    fn bounds(&self) -> Bounds {
        let (across, up) = match self.shape {
            Shape::Circle { radius } => (radius, radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
        };
        const MORE: f64 = 1.000_001;
        let up = (up / EARTH_RADIUS).to_degrees() * MORE;
        let (south, north) = (self.middle.latitude - up, self.middle.latitude + up);
        // Parallels are shortest where they are nearest to a pole; around it they are all inside.
        let shortest = cos(south.abs().max(north.abs()).min(90.0).to_radians());
        let half = sin((across / EARTH_RADIUS).min(core::f64::consts::PI) / 2.0) / shortest;
        let sideways = if across / EARTH_RADIUS > core::f64::consts::FRAC_PI_2 || half.is_nan() || half >= 1.0
        {
            LONGITUDE_LIMIT
        } else {
            (2.0 * asin(half)).to_degrees() * MORE
        };
        Bounds {
            west: self.middle.longitude - sideways,
            east: self.middle.longitude + sideways,
            south,
            north,
        }
    }

    /// The scores of the points inside, and of some near them: ranges from the first to before the second, in order.
    pub fn score_ranges(&self) -> Vec<(f64, f64)> {
        let bounds = self.bounds();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        descend(&bounds, 0, 0, &mut ranges);
        ranges
            .into_iter()
            .map(|(first, end)| (first as f64, end as f64))
            .collect()
    }
}

/// Splits a cell, of `depth` bits of each coordinate, in four until it is small against the bounds.
fn descend(bounds: &Bounds, depth: u32, cell: u64, ranges: &mut Vec<(u64, u64)>) {
    let size = f64::from(1_u32 << depth);
    let (east, north) = (f64::from(gather(cell >> 1)), f64::from(gather(cell)));
    let (width, height) = (2.0 * LONGITUDE_LIMIT / size, 2.0 * LATITUDE_LIMIT / size);
    let own = Bounds {
        west: -LONGITUDE_LIMIT + east * width,
        east: -LONGITUDE_LIMIT + (east + 1.0) * width,
        south: -LATITUDE_LIMIT + north * height,
        north: -LATITUDE_LIMIT + (north + 1.0) * height,
    };
    if !own.meets(bounds) {
        return;
    }
    let is_small = own.width() <= bounds.width() / 4.0 && own.height() <= bounds.height() / 4.0;
    if is_small || depth == BITS {
        let shift = 2 * (BITS - depth);
        let (first, end) = (cell << shift, (cell + 1) << shift);
        match ranges.last_mut() {
            Some((_, last)) if *last == first => *last = end,
            _ => ranges.push((first, end)),
        }
        return;
    }
    for quarter in 0..4 {
        descend(bounds, depth + 1, cell << 2 | quarter, ranges);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points() -> impl Strategy<Value = Point> {
        (-180.0..180.0, -85.0..85.0).prop_map(|(longitude, latitude)| Point { longitude, latitude })
    }

    #[test]
    fn cities_are_where_redis_has_them() {
        // The examples of Redis' documentation of GEOADD, GEODIST and GEOHASH.
        let palermo = Point {
            longitude: 13.361389,
            latitude: 38.115556,
        };
        let catania = Point {
            longitude: 15.087269,
            latitude: 37.502669,
        };
        assert_eq!(palermo.score(), 3_479_099_956_230_698.0);
        assert_eq!(catania.score(), 3_479_447_370_796_909.0);
        let (palermo, catania) = (Point::of_score(palermo.score()), Point::of_score(catania.score()));
        assert_eq!(std::format!("{:.4}", palermo.distance(catania)), "166274.1516");
        assert_eq!(&palermo.geohash(), b"sqc8b49rny0");
        assert_eq!(&catania.geohash(), b"sqdtr74hyu0");
    }

    proptest! {
        #[test]
        fn a_score_is_near_its_point(point in points()) {
            prop_assert!(Point::of_score(point.score()).distance(point) < 1.0);
        }

        #[test]
        fn what_is_inside_is_in_a_range(
            middle in points(),
            point in points(),
            reach in 1.0..20_000_000.0_f64,
            near: bool,
            is_box: bool,
        ) {
            let share = if near { 1e-4 } else { 1.0 };
            let between = |from: f64, to: f64| from + (to - from) * share;
            let point = Point {
                longitude: between(middle.longitude, point.longitude),
                latitude: between(middle.latitude, point.latitude),
            };
            let shape = if is_box {
                Shape::Box { width: reach, height: reach / 3.0 }
            } else {
                Shape::Circle { radius: reach }
            };
            let area = Area { middle, shape };
            let score = point.score();
            if area.distance(Point::of_score(score)).is_some() {
                let ranges = area.score_ranges();
                prop_assert!(ranges.iter().any(|(first, end)| *first <= score && score < *end));
                prop_assert!(ranges.len() < 300, "{}", ranges.len());
            }
        }
    }
}
