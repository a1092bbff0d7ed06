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

    private static FilterPair Xor(StackModel model, Random random)
    {
        byte[] key = new byte[random.Next(1, 9)];
        random.NextBytes(key);
        model.Change(info => info with
        {
            CanTrim = info.CanWrite,
            CanZero = Support.Emulate,
            CanFastZero = true,
            CanExtents = false,
        });
        return new FilterPair(new XorFilter { Key = key }, new MirroredBytesFilter("plain xor", 1, (bytes, offset) =>
        {
            for (int i = 0; i < bytes.Length; i++)
            {
                bytes[i] ^= key[(offset + i) % key.Length];
            }
        }));
    }

    private static INbdFilter Swab(StackModel model, Random random)
    {
        int group = 1 << random.Next(4);
        BlockSize below = model.Info.BlockSize;
        // Where the bytes of the plugin end within a group, the model would not.
        if (group == 1 || (model.RealSize < model.Size && model.RealSize % group != 0))
        {
            return new SwabFilter { Bits = 8 };
        }
        long unit = model.Size % group == 0 ? 1 : Math.Max(group, model.Unit);
        model.Narrow(0, model.Size / unit * unit);
        if (model.Unit < group)
        {
            model.Change(info => info with
            {
                BlockSize = !below.IsKnown
                    ? new BlockSize(group, 4096)
                    : new BlockSize(
                        group, below.Preferred, below.Maximum == NbdKit.BlockSize.Unlimited ? below.Maximum : below.Maximum / group * group),
            });
        }
        return new FilterPair(new SwabFilter { Bits = group * 8 }, new MirroredBytesFilter("plain swab", group, (bytes, _) =>
        {
            for (int i = 0; i < bytes.Length; i += group)
            {
                Array.Reverse(bytes, i, group);
            }
        }));
    }
}
