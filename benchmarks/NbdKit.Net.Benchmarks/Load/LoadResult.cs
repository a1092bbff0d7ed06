using NbdKit.Benchmarks.Report;

namespace NbdKit.Benchmarks.Load;

/// <summary>What a load did to a server.</summary>
/// <param name="RequestsPerSecond">Speed.</param>
/// <param name="CpuMicroseconds">The server's processor time for a request.</param>
/// <param name="ResidentBytes">The server's memory under the load.</param>
internal readonly record struct LoadResult(double RequestsPerSecond, double CpuMicroseconds, double ResidentBytes)
{
    /// <summary>The median of each figure.</summary>
    public static LoadResult Median(IReadOnlyCollection<LoadResult> results) => new(
        Figures.Median(results.Select(result => result.RequestsPerSecond)),
        Figures.Median(results.Select(result => result.CpuMicroseconds)),
        Figures.Median(results.Select(result => result.ResidentBytes)));
}
