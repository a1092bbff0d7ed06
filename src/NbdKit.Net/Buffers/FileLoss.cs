namespace NbdKit.Buffers;

/// <summary>
/// The first failure to bring written data to the disk. The operating system reports one only once for each opening of a file, so
/// all that share an opening share this.
/// </summary>
internal sealed class FileLoss
{
    private volatile NbdException? _first;

    public NbdException? First => _first;

    public void Note(NbdException? failure) => _first ??= failure;
}
