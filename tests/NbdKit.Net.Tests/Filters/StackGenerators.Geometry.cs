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
        => new() { Ranges = [new(model.Size), random.Next(2) == 0 ? new(0, null, true) : new(model.Size + 1, model.Size + 1)] };
}
