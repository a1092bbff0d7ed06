namespace NbdKit.Plugins.Images;

/// <summary>
/// The pages of tables that were used last, at most 1 MiB of them. A look-up takes no lock: a page never changes once it is
/// here, and one that has to make room lives on for whoever still looks at it.
/// </summary>
internal sealed class MappedPages
{
    public const int PageSize = 4096;

    private const int Sets = 64;

    // More than the levels of any format's tables: what one look-up needs does not push itself out.
    private const int Ways = 4;

    private readonly Page?[] _pages = new Page?[Sets * Ways];
    private readonly byte[] _oldest = new byte[Sets];

    public bool TryGet(MappedView view, long number, out ReadOnlySpan<byte> bytes)
    {
        int set = SetOf(view, number);
        for (int way = 0; way < Ways; way++)
        {
            Page? page = Volatile.Read(ref _pages[(set * Ways) + way]);
            if (page is not null && page.Number == number && page.View == view)
            {
                bytes = page.Data;
                return true;
            }
        }
        bytes = default;
        return false;
    }

    public void Put(MappedView view, long number, byte[] data)
    {
        int set = SetOf(view, number);
        lock (_oldest)
        {
            if (!TryGet(view, number, out _))
            {
                Volatile.Write(ref _pages[(set * Ways) + (_oldest[set]++ % Ways)], new Page(view, number, data));
            }
        }
    }

    private static int SetOf(MappedView view, long number) => (int)((number + ((long)view.Id * 61)) & (Sets - 1));

    private sealed record Page(MappedView View, long Number, byte[] Data);
}
