using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

// Filters that change the size and shape of a disk. What a model cannot show, such as bytes that no plugin has, is in tests of
// their own.
internal static partial class StackGenerators
{
    private static TruncateFilter? Truncate(StackModel model, Random random)
    {
        long units = model.Size / model.Unit;
        long size = (units - random.NextInt64(Math.Min(units, 8) + 1)) * model.Unit;
        long? down = random.Next(2) == 0 ? null : model.Unit * random.Next(1, 5);
        model.Narrow(0, size - (size % (down ?? 1)));
        return new TruncateFilter { Size = size, RoundUp = random.Next(2) == 0 ? model.Unit : null, RoundDown = down };
    }

    // Histories write everywhere, so that only what lies beyond the end can be protected.
    private static ProtectFilter Protect(StackModel model, Random random)
        => new() { Ranges = [new(model.Size), random.Next(2) == 0 ? new(0, null, true) : new(model.Size)] };

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

    private static ExtentlistFilter Extentlist(StackModel model, Random random)
    {
        model.Change(info => info with { CanExtents = true });
        return new ExtentlistFilter { Extents = [new(0, model.Size, ExtentStatus.Data)] };
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
