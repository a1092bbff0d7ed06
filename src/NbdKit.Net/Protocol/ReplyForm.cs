namespace NbdKit.Protocol;

/// <summary>How requests are answered, as negotiated in the handshake.</summary>
internal enum ReplyForm
{
    /// <summary>"Simple reply message" for everything.</summary>
    Simple,

    /// <summary>"Structured reply chunk message" for what has a payload and for errors.</summary>
    Structured,

    /// <summary>"Extended reply chunk message" for everything; requests have extended headers too.</summary>
    Extended,
}
