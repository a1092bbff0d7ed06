namespace NbdKit.Tool;

/// <summary>A path for a Unix socket in a directory that only this user can enter; removed at the end.</summary>
internal sealed class PrivateSocket : IDisposable
{
    private readonly DirectoryInfo _directory;

    public PrivateSocket()
    {
        _directory = Directory.CreateTempSubdirectory("nbdkit-net-");
        AppDomain.CurrentDomain.ProcessExit += Remove;
    }

    public string Path => System.IO.Path.Combine(_directory.FullName, "socket");

    public void Dispose()
    {
        AppDomain.CurrentDomain.ProcessExit -= Remove;
        Remove(null, EventArgs.Empty);
    }

    private void Remove(object? sender, EventArgs e)
    {
        try
        {
            _directory.Delete(recursive: true);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // Somebody was faster, or the system is going down; a leftover in the temporary directory harms nobody.
        }
    }
}
