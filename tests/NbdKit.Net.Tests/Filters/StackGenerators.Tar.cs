using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

// An archive in place of what the disk held: a file that nobody asks for, then the one that is served.
internal static partial class StackGenerators
{
    private static TarFilter? Tar(StackModel model, Random random)
    {
        long step = Math.Max(model.Unit, TarImage.Block);
        long start = (random.Next(1, 5) * step) + Math.Max(step, 2 * TarImage.Block);
        // A unit that is not a power of two cannot be met by blocks of 512 bytes.
        start -= start % step;
        long room = (model.Size - start) / model.Unit * model.Unit;
        if (!model.IsBacked || room <= 0)
        {
            return null;
        }
        long size = random.Next(3) == 0 ? room : Math.Max(1, (room - random.NextInt64(room / 3 + 1)) / model.Unit) * model.Unit;
        string name = random.Next(2) == 0 ? "folder/disk" : "disk";
        long gap = start - (2 * TarImage.Block);
        TarImage.Header("other", gap).CopyTo(model.Bytes(0, TarImage.Block));
        TarImage.Header(name, size, random.Next(4) == 0 ? '\0' : '0').CopyTo(model.Bytes(start - TarImage.Block, TarImage.Block));
        model.Narrow(start, size);
        return new TarFilter { TarEntry = name, Limit = random.Next(2) == 0 ? null : start };
    }
}
