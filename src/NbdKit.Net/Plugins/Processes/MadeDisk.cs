using NbdKit.Buffers;
using NbdKit.Native;

namespace NbdKit.Plugins.Processes;

/// <summary>An open file that was made for its clients.</summary>
/// <param name="file">The file.</param>
/// <param name="multiConn">Whether several connections can use it as one.</param>
/// <param name="durable">Whether what is written is to survive; if not, flushes have nothing to do.</param>
/// <param name="owned">Whether the end of the context closes it.</param>
internal sealed class MadeDisk(SparseFile file, bool multiConn, bool durable, bool owned) : INbdPluginHandle, ILender
{
    private readonly FileHandle _file = new(file, FileCacheMode.Default);

    public async ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
        => await _file.GetInfoAsync(cancellationToken).ConfigureAwait(false) with { CanMultiConn = multiConn };

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => _file.ReadAsync(buffer, offset, cancellationToken);

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => _file.WriteAsync(data, offset, Kept(flags), cancellationToken);

    public ValueTask FlushAsync(CancellationToken cancellationToken)
        => durable ? _file.FlushAsync(cancellationToken) : default;

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => _file.TrimAsync(offset, length, Kept(flags), cancellationToken);

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => _file.ZeroAsync(offset, length, Kept(flags), cancellationToken);

    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
        => _file.CacheAsync(offset, length, cancellationToken);

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
        => _file.ExtentsAsync(offset, length, flags, extents, cancellationToken);

    public bool TryLend(long offset, int length, Loan loan, bool forWrite) => _file.TryLend(offset, length, loan, forWrite);

    public ValueTask CloseAsync() => owned ? _file.CloseAsync() : default;

    /// <summary>Makes a directory for temporary files that nobody else can look into.</summary>
    /// <exception cref="NbdException">It cannot be made.</exception>
    public static string MakeFolder(string parent, string name)
    {
        string path = Path.Join(parent, $"{name}-{Path.GetRandomFileName()}");
        try
        {
            return OperatingSystem.IsWindows()
                ? Directory.CreateDirectory(path).FullName
                : Directory.CreateDirectory(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute).FullName;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw FileErrors.FromException(e, $"{name}: cannot make a temporary directory");
        }
    }

    private RequestFlags Kept(RequestFlags flags) => durable ? flags : flags & ~RequestFlags.Fua;
}
