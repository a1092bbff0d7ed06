using NbdKit.Buffers;

namespace NbdKit.Plugins.Processes;

/// <summary>A read-only image that is made once, in a temporary file without a name, and that all clients share.</summary>
internal sealed class MadeImage : IDisposable
{
    private SparseFile? _file;

    /// <summary>Makes the image.</summary>
    /// <param name="plugin">The plugin's name.</param>
    /// <param name="make">Makes the file at a path where there is none, in a directory of its own.</param>
    /// <exception cref="NbdException">It could not be made.</exception>
    public async Task MakeAsync(string plugin, Func<string, Task> make)
    {
        string folder = MadeDisk.MakeFolder(FileOverlayStore.DefaultDirectory, plugin);
        try
        {
            string path = Path.Join(folder, "disk");
            await make(path).ConfigureAwait(false);
            _file = SparseFile.Open(path, readOnly: true, followLinks: false, FileOptions.None);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    public INbdPluginHandle Open() => new MadeDisk(_file!, multiConn: true, durable: true, owned: false);

    public void Dispose() => _file?.Dispose();
}
