namespace NbdKit.Plugins.Members;

/// <summary>One member after the other.</summary>
internal sealed class ConcatLayout : MemberLayout
{
    // The offset of each member in the disk, and at the end the size of the disk.
    private readonly long[] _starts;

    /// <exception cref="NbdException">The disk is too large, or a member begins where it cannot be reached.</exception>
    public ConcatLayout(IReadOnlyList<NbdExportInfo> members, long minimumBlock)
    {
        _starts = new long[members.Count + 1];
        for (int i = 0; i < members.Count; i++)
        {
            if (members[i].Size > long.MaxValue - _starts[i])
            {
                throw new NbdException(NbdError.InvalidArgument, "concat: the members are more than 2^63-1 bytes in all");
            }
            if (members[i].Size > 0 && _starts[i] % minimumBlock != 0)
            {
                throw new NbdException(
                    NbdError.InvalidArgument,
                    $"concat: member {i + 1} begins at {_starts[i]}, which is not a multiple of the block size {minimumBlock}");
            }
            _starts[i + 1] = _starts[i] + members[i].Size;
        }
    }

    public override long Size => _starts[^1];

    public override MemberPiece Locate(long offset)
    {
        // The last one that begins there or before: those of size 0 are passed over.
        int low = 0;
        int high = _starts.Length - 2;
        while (low < high)
        {
            int middle = (low + high + 1) >>> 1;
            (low, high) = _starts[middle] <= offset ? (middle, high) : (low, middle - 1);
        }
        return new MemberPiece(low, offset - _starts[low], _starts[low + 1] - offset);
    }

    public override long Before(int member, long offset)
        => Math.Clamp(offset, _starts[member], _starts[member + 1]) - _starts[member];
}
