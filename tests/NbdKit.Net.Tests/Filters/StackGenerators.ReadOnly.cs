using System.Globalization;
using System.Text;
using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

// Filters that open what is below them read-only.
internal static partial class StackGenerators
{
    public static (INbdFilter Filter, string Name) ReadOnlyBelow(StackModel model, Random random)
    {
        switch (random.Next(3))
        {
            case 0:
                return (new ReadonlyFilter(), "readonly for good");
            case 1:
                model.IsFrozen = true;
                model.Change(info => info with
                {
                    CanWrite = true,
                    CanFlush = true,
                    CanTrim = true,
                    CanZero = Support.Native,
                    CanFastZero = true,
                    CanFua = Support.Native,
                    CanMultiConn = true,
                });
                return (new CheckwriteFilter(), "checkwrite");
            default:
                model.Change(info => info with { CanCache = info.CanCache == Support.Emulate ? Support.Native : info.CanCache });
                model.Bad = BadRanges(model.Size, random);
                return (new DdrescueFilter { MapFile = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName()) }, "ddrescue");
        }
    }

    /// <summary>The map file of ddrescue that says what of a model cannot be read.</summary>
    public static string RescueMapOf(StackModel model)
    {
        var text = new StringBuilder("# made by a test\n0x00000000 ?\n");
        long at = 0;
        foreach ((long start, long end) in model.Bad)
        {
            Line(at, start, '+');
            Line(start, end, "-*/?"[(int)(start % 4)]);
            at = end;
        }
        Line(at, model.Size, '+');
        return text.ToString();

        void Line(long from, long to, char status)
        {
            if (from < to)
            {
                text.Append(CultureInfo.InvariantCulture, $"0x{from:x} 0x{to - from:x} {status}\n");
            }
        }
    }

    private static List<(long Start, long End)> BadRanges(long size, Random random)
    {
        var ranges = new List<(long, long)>();
        for (long at = 0; ranges.Count < 6;)
        {
            long start = at + random.NextInt64(Math.Max(1, Math.Min(60_000, size)));
            long end = start + random.Next(1, random.Next(2) == 0 ? 100 : 5000);
            if (end > size)
            {
                break;
            }
            ranges.Add((start, end));
            at = end + 1;
        }
        return ranges;
    }
}
