using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

// Filters that change the size and shape of a disk.
internal static partial class StackGenerators
{
    private static TruncateFilter? Truncate(StackModel model, Random random)
    {
        // Beyond what a cache holds back, nobody could say why a flush fails.
        if (random.Next(2) == 0 && !model.HoldsBack && model.IsBacked && model.Size % model.Unit == 0 && model.Size <= long.MaxValue - (1 << 20))
        {
            long grown = model.Size + (random.NextInt64(1, (50_000 / model.Unit) + 2) * model.Unit);
            model.Grow(grown);
            model.Change(info => info with { CanExtents = true });
            return new TruncateFilter { Size = grown };
        }
        long units = model.Size / model.Unit;
        long size = (units - random.NextInt64(Math.Min(units, 8) + 1)) * model.Unit;
        long? down = random.Next(2) == 0 ? null : model.Unit * random.Next(1, 5);
        model.Narrow(0, size - (size % (down ?? 1)));
        return new TruncateFilter { Size = size, RoundUp = random.Next(2) == 0 ? model.Unit : null, RoundDown = down };
    }

    private static ProtectFilter Protect(StackModel model, Random random)
    {
        var ranges = new List<ProtectRange> { new(model.Size), random.Next(2) == 0 ? new(0, null, true) : new(model.Size) };
        // What a cache holds back is refused too late for the model.
        for (int i = model.HoldsBack || !model.IsBacked || model.Size == 0 ? 0 : random.Next(4); i > 0; i--)
        {
            long start = random.NextInt64(model.Size);
            long length = random.NextInt64(1, Math.Min(model.Size - start, random.Next(2) == 0 ? 100 : 10_000) + 1);
            ranges.Add(new(start, start + length - 1));
            model.Protect(start, length);
        }
        return new ProtectFilter { Ranges = ranges };
    }

    private static BlockSizePolicyFilter BlockSizePolicy(StackModel model, Random random)
    {
        long larger = model.Unit * 2;
        bool fits = larger <= 65_536
            && (model.Info.BlockSize.Maximum is 0 or NbdKit.BlockSize.Unlimited || model.Info.BlockSize.Maximum % larger == 0);
        var filter = new BlockSizePolicyFilter
        {
            Minimum = random.Next(2) == 0 && fits ? larger : null,
            ErrorPolicy = (BlockSizeErrorPolicy)random.Next(2),
            WriteDisconnect = random.Next(2) == 0 ? null : 1 << 20,
        };
        bool isAdvice = filter.ErrorPolicy == BlockSizeErrorPolicy.Allow;
        model.Change(info => info with
        {
            BlockSize = filter.Minimum is { } minimum
                ? info.BlockSize.IsKnown
                    ? new BlockSize(minimum, Math.Max(minimum, info.BlockSize.Preferred), info.BlockSize.Maximum)
                    : new BlockSize(minimum, Math.Max(minimum, 4096))
                : info.BlockSize,
            BlockSizeIsAdvice = isAdvice,
            CanZero = info.CanZero == Support.Emulate ? Support.Native : info.CanZero,
            CanCache = info.CanCache == Support.Emulate ? Support.Native : info.CanCache,
        });
        return filter;
    }

    private static INbdFilter Extentlist(StackModel model, Random random)
    {
        model.Change(info => info with { CanExtents = true });
        if (!model.IsBacked || model.HoldsBack)
        {
            return new ExtentlistFilter { Extents = [new(0, model.Size, ExtentStatus.Data)] };
        }
        // Filters above may still put tables there, so the zeroes are looked for later.
        Range range = model.InPlugin(0, model.Size);
        int seed = random.Next();
        return new LateFilter("extentlist", () => new ExtentlistFilter { Extents = ExtentsOf(model.Content.AsSpan(range), new Random(seed)) });
    }

    /// <summary>Most of the zeroes that there are, and the rest, which is data.</summary>
    private static List<Extent> ExtentsOf(ReadOnlySpan<byte> bytes, Random random)
    {
        var list = new List<Extent>();
        int end = 0;
        for (int at = 0; at < bytes.Length;)
        {
            int length = bytes[at..].IndexOfAnyExcept((byte)0);
            length = length < 0 ? bytes.Length - at : length;
            if (length > 2)
            {
                int from = at + random.Next(2);
                if (from > end)
                {
                    list.Add(new Extent(end, from - end, ExtentStatus.Data));
                }
                end = at + length - random.Next(2);
                list.Add(new Extent(from, end - from, ExtentStatus.Hole | ExtentStatus.Zero));
            }
            int next = bytes[(at + length)..].IndexOf((byte)0);
            at = next < 0 ? bytes.Length : at + length + next;
        }
        if (end < bytes.Length)
        {
            list.Add(new Extent(end, bytes.Length - end, ExtentStatus.Data));
        }
        return list;
    }

    private static ExportnameFilter Exportname(StackModel model, Random random)
    {
        if (random.Next(2) == 0)
        {
            return new ExportnameFilter { DefaultExport = "other" };
        }
        model.Change(info => info with { Description = "described" });
        return new ExportnameFilter { Describe = (_, _, _) => new("described") };
    }
}
