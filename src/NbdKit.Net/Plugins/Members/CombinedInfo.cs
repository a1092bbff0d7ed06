using System.Numerics;

namespace NbdKit.Plugins.Members;

/// <summary>What a disk made of several can do: what its members make possible together, and no more.</summary>
internal static class CombinedInfo
{
    /// <exception cref="NbdException">The members take no common size of request.</exception>
    public static NbdExportInfo Of(IReadOnlyList<NbdExportInfo> members, long size)
    {
        bool canWrite = members.All(m => m.CanWrite);
        bool canFlush = members.Any(m => m.CanFlush) && members.All(m => m.CanFlush || !m.CanWrite);
        Support zero = members.All(m => m.CanZero == Support.None) ? Support.None
            : members.All(m => m.CanZero != Support.None) && members.Any(m => m.CanZero == Support.Native) ? Support.Native
            : Support.Emulate;
        return new NbdExportInfo
        {
            Size = size,
            BlockSize = BlockSizeOf(members),
            CanWrite = canWrite,
            CanFlush = canFlush,
            CanTrim = members.Any(m => m.CanTrim),
            IsRotational = members.Any(m => m.IsRotational),
            CanZero = zero,
            CanFastZero = zero == Support.Emulate || (zero == Support.Native && members.All(m => m.CanFastZero)),
            // Each member gets the flag, and does what it takes for its own part.
            CanFua = members.All(m => m.CanFua != Support.None) ? Support.Native
                : canFlush ? Support.Emulate
                : Support.None,
            CanCache = members.Any(m => m.CanCache != Support.None) ? Support.Native : Support.None,
            CanMultiConn = members.All(m => m.CanMultiConn),
            CanExtents = members.Any(m => m.CanExtents),
            CanReadSparse = members.Any(m => m.CanReadSparse != Support.None) ? Support.Emulate : Support.None,
            MetaContexts = [.. ContextsOf(members[0]).Where(name => members.All(m => ContextsOf(m).Contains(name)))],
            WideMetaContexts = [.. members.SelectMany(m => m.WideMetaContexts).Distinct()],
            IsBlocking = members.Any(m => m.IsBlocking),
        };
    }

    /// <summary>The alignment that all members can do with, at least 1.</summary>
    public static long MinimumBlock(IReadOnlyList<NbdExportInfo> members)
        => Math.Max(1, members.Max(m => m.BlockSize.Minimum));

    private static IReadOnlyList<string> ContextsOf(NbdExportInfo info)
        => info.CanExtents ? info.MetaContexts : [ExtentList.BaseAllocation];

    private static BlockSize BlockSizeOf(IReadOnlyList<NbdExportInfo> members)
    {
        if (!members.Any(m => m.BlockSize.IsKnown))
        {
            return default;
        }
        long minimum = MinimumBlock(members);
        long preferred = Math.Max(members.Max(m => m.BlockSize.Preferred), minimum);
        long maximum = members.Min(m => m.BlockSize.IsKnown ? m.BlockSize.Maximum : BlockSize.Unlimited);
        if (maximum == BlockSize.Unlimited)
        {
            return new BlockSize(minimum, preferred);
        }
        maximum -= maximum % minimum;
        if (maximum < Math.Max(minimum, 512))
        {
            throw new NbdException(
                NbdError.InvalidArgument, "the members take no common size of request: put the blocksize filter over one of them");
        }
        preferred = Math.Min(preferred, 1L << BitOperations.Log2((ulong)maximum));
        return new BlockSize(minimum, preferred, maximum);
    }
}
