using System.Globalization;
using System.Text;

namespace NbdKit.Filters.Statistics;

/// <summary>Writes statistics as nbdkit-stats-filter(1) does.</summary>
internal static class StatsText
{
    private static readonly string[] Names = ["read", "write", "trim", "zero", "extents", "cache", "flush"];

    /// <summary>The text, with lines that end in LF.</summary>
    /// <param name="snapshot">What was counted.</param>
    /// <param name="threshold">The percentage of requests that the histograms are about; 0 for no histograms.</param>
    public static string Write(StatsSnapshot snapshot, int threshold)
    {
        var text = new StringBuilder();
        Line(
            text,
            $"total: {snapshot.Requests} ops, {Seconds(snapshot.Elapsed)} s, {Size(snapshot.Bytes)}, "
            + $"{Rate(snapshot.Bytes, snapshot.Elapsed)}/s");
        foreach (OperationStats operation in snapshot.Operations)
        {
            if (operation.Requests == 0)
            {
                continue;
            }
            Line(
                text,
                $"{Names[(int)operation.Operation]}: {operation.Requests} ops, {Seconds(operation.Duration)} s, {Size(operation.Bytes)}, "
                + $"{Rate(operation.Bytes, operation.Duration)}/s op, {Rate(operation.Bytes, snapshot.Elapsed)}/s total");
            if (threshold > 0 && operation.Sizes.Count > 0)
            {
                Line(text, "  Request size and alignment breakdown:");
                WriteSizes(text, operation.Sizes, threshold);
                Line(text, "");
            }
        }
        return text.ToString();
    }

    private static void WriteSizes(StringBuilder text, IReadOnlyList<SizeStats> sizes, int threshold)
    {
        long total = sizes.Sum(size => size.Requests);
        long left = total;
        long enough = Math.Max(1, total * threshold / 100);
        long bytesLeft = sizes.Sum(size => size.Bytes);
        // The most frequent first; of equally frequent ones the largest.
        foreach (SizeStats size in sizes.OrderByDescending(size => size.Requests).ThenByDescending(size => size.Bits))
        {
            if (total - left >= enough)
            {
                Line(text, $"    other sizes: {Percent(left, total),4}% ({left} reqs, {Size(bytesLeft)} total)");
                break;
            }
            Line(text, $"    {size.Bits,2} bits: {Percent(size.Requests, total),4}% ({size.Requests} reqs, {Size(size.Bytes)} total)");
            WriteAlignments(text, size, threshold);
            left -= size.Requests;
            bytesLeft -= size.Bytes;
        }
    }

    private static void WriteAlignments(StringBuilder text, SizeStats size, int threshold)
    {
        long cutOff = size.Requests * (100 - threshold) / 100;
        (int Bits, long Requests)[] aligned = [.. size.Aligned.Select(pair => (pair.Key, pair.Value)).OrderBy(pair => pair.Key)];
        for (int i = 0; i < aligned.Length; i++)
        {
            (int bits, long requests) = aligned[i];
            if (requests < cutOff)
            {
                Line(text, $"         {bits,2}+ bit-aligned: {Percent(requests, size.Requests),4}% ({requests})");
                break;
            }
            // Of those with as many requests only the largest.
            if (i == aligned.Length - 1 || aligned[i + 1].Requests != requests)
            {
                Line(text, $"         {bits,2} bit aligned: {Percent(requests, size.Requests),5}% ({requests})");
            }
        }
    }

    private static string Seconds(TimeSpan time) => time.TotalSeconds.ToString("F6", CultureInfo.InvariantCulture);

    private static string Percent(long part, long total) => (100.0 * part / total).ToString("F1", CultureInfo.InvariantCulture);

    private static string Rate(long bytes, TimeSpan time) => time > TimeSpan.Zero ? Size(bytes / time.TotalSeconds) : "(n/a)";

    private static string Size(double bytes) => bytes switch
    {
        < 1 << 10 => string.Create(CultureInfo.InvariantCulture, $"{Math.Floor(bytes):F0} bytes"),
        < 1 << 20 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (1 << 10):F2} KiB"),
        < 1 << 30 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (1 << 20):F2} MiB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes / (1 << 30):F2} GiB"),
    };

    private static void Line(StringBuilder text, FormattableString line)
        => text.Append(line.ToString(CultureInfo.InvariantCulture)).Append('\n');

    private static void Line(StringBuilder text, string line) => text.Append(line).Append('\n');
}
