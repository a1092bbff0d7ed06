namespace NbdKit.Plugins;

/// <summary>What the disk of <see cref="InfoPlugin"/> holds.</summary>
public enum InfoMode
{
    /// <summary>The export name that the client asked for, in UTF-8 (<c>exportname</c>).</summary>
    ExportName,

    /// <summary>What the export name says in base64 (<c>base64exportname</c>); one that is no base64 cannot be opened.</summary>
    Base64ExportName,

    /// <summary>
    /// The client's address and port as text, or <c>unix</c>; nothing for a client whose address is not known (<c>address</c>).
    /// </summary>
    Address,

    /// <summary>The time of the server, since the start of 1970 (<c>time</c>).</summary>
    Time,

    /// <summary>The time since the chain was started (<c>uptime</c>).</summary>
    Uptime,

    /// <summary>The time since the export was opened (<c>conntime</c>).</summary>
    ConnectionTime,

    /// <summary>The version of the library, like <c>1.2.3</c> (<c>version</c>).</summary>
    Version,
}
