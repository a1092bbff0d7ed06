namespace NbdKit.Benchmarks.Report;

/// <summary>How figures are summed up and shown.</summary>
internal static class Figures
{
    public static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        int middle = sorted.Length / 2;
        return sorted.Length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }

    public static string Count(double value) => $"{value:N0}";

    public static string Fine(double value) => $"{value:0.00}";

    public static string Ratio(double value, double peer) => peer > 0 ? $"{value / peer:0.00}" : "-";

    public static string Mebibytes(double bytes) => $"{bytes / (1 << 20):0.0}";

    public static string Bytes(long bytes)
    {
        string[] units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        int unit = 0;
        while (bytes >= 1024 && bytes % 1024 == 0 && unit < units.Length - 1)
        {
            bytes /= 1024;
            unit++;
        }
        return $"{bytes} {units[unit]}";
    }
}
