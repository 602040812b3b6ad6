#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// `exp` of the C library: the standard library has none.
func exponential(_ value: Double) -> Double { exp(value) }
