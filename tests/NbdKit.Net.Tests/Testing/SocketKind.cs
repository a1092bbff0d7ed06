namespace NbdKit.Tests.Testing;

/// <summary>What clients connect over.</summary>
public enum SocketKind
{
    /// <summary>A Unix domain socket.</summary>
    Unix,

    /// <summary>TCP over the loopback interface.</summary>
    Tcp,
}
