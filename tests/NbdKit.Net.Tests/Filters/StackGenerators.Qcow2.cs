using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

internal static partial class StackGenerators
{
    private static Qcow2DecFilter? Qcow2(StackModel model, Random random)
    {
        if (!model.IsBacked)
        {
            return null;
        }
        int clusterBits = random.Next(9, 13);
        long size = model.Size;
        Qcow2Layout layout;
        do
        {
            // Of what there is, tables take a little, and the disk need not end with a cluster.
            size -= size < 65_536 ? 512 : 4096;
            if (size < 512)
            {
                return null;
            }
            layout = new Qcow2Layout(size - random.Next(512), clusterBits, random.Next(2, 4));
        }
        while (layout.Data + (layout.Clusters << clusterBits) > model.Size);
        layout.Write(model.Bytes(0, model.Size));
        model.Narrow(layout.Data, layout.Size);
        NbdExportInfo below = model.Info;
        model.Change(_ => new NbdExportInfo
        {
            Size = layout.Size,
            BlockSize = new BlockSize(1, 4096),
            Description = below.Description,
            IsRotational = below.IsRotational,
            CanCache = Support.Emulate,
            CanMultiConn = true,
            CanExtents = true,
            IsBlocking = below.IsBlocking,
        });
        return new Qcow2DecFilter { CacheSize = random.Next(100_000) };
    }
}
