namespace NbdKit.Filters.Tar;

/// <summary>One context of the tar filter: finds the member, then moves every request into it.</summary>
internal sealed class TarHandle(string entry, long? limit) : WindowHandle
{
    public override async ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
    {
        var scanner = new TarScanner(next, limit);
        TarMember? member;
        int seen = 0;
        while ((member = await scanner.NextAsync(cancellationToken).ConfigureAwait(false))?.Name != entry)
        {
            if (member is null)
            {
                string where = scanner.HitLimit ? $" that begin in the first {limit} bytes" : "";
                throw new NbdException(
                    NbdError.InvalidArgument, $"'{entry}' is not one of the {seen} files of the tar archive{where}");
            }
            seen++;
        }
        member.RequireServable(next);
        Show(member.Offset, member.Size);
    }
}
