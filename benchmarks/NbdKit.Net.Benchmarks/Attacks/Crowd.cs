using System.Net.Sockets;

namespace NbdKit.Benchmarks.Attacks;

/// <summary>Connections that are held open together.</summary>
internal sealed class Crowd : IDisposable
{
    private readonly List<Socket> _sockets = [];

    /// <summary>How many are held.</summary>
    public int Count => _sockets.Count;

    /// <summary>Adds so many, until the server will not have another.</summary>
    public void Fill(int count, Func<Socket> connect)
    {
        for (int i = 0; i < count && Add(connect) is not null; i++)
        {
        }
    }

    /// <summary>Adds one, unless the server will not have it.</summary>
    public Socket? Add(Func<Socket> connect)
    {
        try
        {
            Socket socket = connect();
            _sockets.Add(socket);
            return socket;
        }
        catch (Exception e) when (e is SocketException or EndOfStreamException or InvalidDataException)
        {
            return null;
        }
    }

    public void Dispose() => _sockets.ForEach(socket => socket.Dispose());
}
