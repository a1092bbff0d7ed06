using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

internal static partial class StackGenerators
{
    // A window, as the model has one, made of ranges that lie side by side.
    private static MapFilter? Map(StackModel model, Random random)
    {
        long units = model.Size / model.Unit;
        if (!model.IsBacked || units == 0)
        {
            return null;
        }
        long start = random.NextInt64(Math.Min(units, 9)) * model.Unit;
        long size = (model.Size - start) / model.Unit * model.Unit;
        long[] borders = [0, .. Enumerable.Range(0, 3).Select(_ => random.NextInt64((size / model.Unit) + 1) * model.Unit).Order(), size];
        MapRange[] ranges =
        [
            .. Enumerable.Range(0, 4).Where(i => borders[i] < borders[i + 1])
                .Select(i => new MapRange(borders[i], borders[i + 1] - 1, start + borders[i])),
        ];
        random.Shuffle(ranges);
        model.Narrow(start, size);
        return new MapFilter { Ranges = ranges, Size = size };
    }

    private static NocacheFilter Nocache(StackModel model, Random random)
    {
        var mode = (NocacheMode)random.Next(3);
        model.Change(info => info with
        {
            CanCache = mode switch
            {
                NocacheMode.None => Support.None,
                NocacheMode.Emulate => Support.Emulate,
                _ => Support.Native,
            },
        });
        return new NocacheFilter { Mode = mode };
    }

    private static RotationalFilter Rotational(StackModel model, Random random)
    {
        bool rotates = random.Next(2) == 0;
        model.Change(info => info with { IsRotational = rotates });
        return new RotationalFilter { IsRotational = rotates };
    }

    // The bytes of the model are those of the plugin, so a key that changes them is for another test.
    private static XorFilter Xor(StackModel model, Random random)
    {
        model.Change(info => info with
        {
            CanTrim = info.CanWrite,
            CanZero = Support.Emulate,
            CanFastZero = true,
            CanExtents = false,
        });
        return new XorFilter { Key = new byte[random.Next(1, 9)] };
    }
}
