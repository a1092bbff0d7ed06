using System.Net;
using System.Net.Sockets;

namespace NbdKit.Benchmarks.Servers;

/// <summary>A folder for sockets and images, which goes at the end.</summary>
internal sealed class Scratch : IDisposable
{
    private const int Chunk = 1 << 20;

    private readonly string _folder;
    private int _sockets;

    public Scratch(string parent)
    {
        // Short: the path of a socket must not be long.
        _folder = Path.Combine(parent, $"nbdbench-{Environment.ProcessId}");
        Directory.CreateDirectory(_folder);
    }

    /// <summary>A path that is not used yet.</summary>
    public UnixDomainSocketEndPoint NewSocket() => new(Path.Combine(_folder, $"{++_sockets}.sock"));

    /// <summary>A port that is free now.</summary>
    public static IPEndPoint NewPort()
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return (IPEndPoint)socket.LocalEndPoint!;
    }

    public string FilePath(string name) => Path.Combine(_folder, name);

    /// <summary>A file of random data, without holes; every second stretch is left out if there is a stretch.</summary>
    public string NewImage(string name, long size, long stretch = long.MaxValue)
    {
        string path = FilePath(name);
        byte[] data = new byte[Chunk];
        var random = new Random(1);
        using FileStream file = File.Create(path);
        file.SetLength(size);
        for (long at = 0; at < size; at += Chunk)
        {
            if (at / stretch % 2 == 0)
            {
                random.NextBytes(data);
                file.Position = at;
                file.Write(data.AsSpan(0, (int)Math.Min(Chunk, size - at)));
            }
        }
        // What is dirty would be written while something is measured.
        file.Flush(flushToDisk: true);
        return path;
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
