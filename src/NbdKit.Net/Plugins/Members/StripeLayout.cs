namespace NbdKit.Plugins.Members;

/// <summary>Stripes of equal size that go round the members. Of each member the same number of whole stripes is used.</summary>
internal sealed class StripeLayout : MemberLayout
{
    private readonly long _stripe;
    private readonly int _members;

    /// <exception cref="NbdException">The disk is too large, or stripes would cut blocks of a member.</exception>
    public StripeLayout(IReadOnlyList<NbdExportInfo> members, long minimumBlock, long stripe)
    {
        if (stripe % minimumBlock != 0)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                $"stripe: the stripe size {stripe} is not a multiple of the block size {minimumBlock} of the members");
        }
        _stripe = stripe;
        _members = members.Count;
        long used = members.Min(member => member.Size) / stripe * stripe;
        if (used > long.MaxValue / _members)
        {
            throw new NbdException(NbdError.InvalidArgument, "stripe: the members are more than 2^63-1 bytes in all");
        }
        Size = used * _members;
    }

    public override long Size { get; }

    public override MemberPiece Locate(long offset)
    {
        (long stripe, long within) = Math.DivRem(offset, _stripe);
        (long row, long member) = Math.DivRem(stripe, _members);
        return new MemberPiece((int)member, (row * _stripe) + within, _stripe - within);
    }

    public override long Before(int member, long offset)
    {
        (long stripe, long within) = Math.DivRem(offset, _stripe);
        (long row, long current) = Math.DivRem(stripe, _members);
        return (row * _stripe) + (member < current ? _stripe : member == current ? within : 0);
    }
}
